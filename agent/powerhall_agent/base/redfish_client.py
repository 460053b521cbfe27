"""The Redfish client (DMTF DSP0266) of node and facility: GET over a kept connection, with a Basic or session login.

Requests go to the device directly: no proxy, no redirect, no retry. A kept connection that the service has closed is
opened again. Passwords are read from their file at every login and appear in no message.
"""

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import urllib3
import urllib3.exceptions

from powerhall.runtime.errors import Retryable
from powerhall.runtime.settings import Secret

__all__ = ["RedfishClient", "RedfishLogin", "RedfishReply"]

_SESSIONS: Final = "/redfish/v1/SessionService/Sessions"
_MAX_BYTES: Final = 4 * 1024 * 1024
_SESSION_ENDED: Final = (401, 403)
_HEADERS: Final = {"Accept": "application/json", "OData-Version": "4.0"}


@dataclass(frozen=True, slots=True)
class RedfishLogin:
    """Where the service is, and how to log in; without a user there is no login."""

    url: str
    """`http(s)://HOST[:PORT]`."""
    timeout_s: float
    user: str = ""
    password_file: str = ""
    auth: Literal["basic", "session"] = "basic"
    verify_tls: bool = True
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class RedfishReply:
    """The status of a GET, and the JSON document where it is 200."""

    status: int
    document: object = None


class RedfishClient:
    """One service; used by one thread at a time. Any failure raises Retryable and ends connection and session."""

    def __init__(self, login: RedfishLogin, wait: Callable[[], None] | None = None) -> None:
        """`wait` is called before every request, to keep them apart; nothing is sent yet."""
        self._login, self._wait = login, wait
        self._base = login.url.rstrip("/")
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._headers: dict[str, str] = {}
        self._session = ""

    def get(self, path: str) -> RedfishReply:
        """Read a resource; a session that has ended is opened again, once."""
        try:
            reply = self._get(path)
            if reply.status in _SESSION_ENDED and self._session:
                self._session = ""
                self.close()
                reply = self._get(path)
        except Retryable:
            self.close()
            raise
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self.close()
            raise Retryable(f"{self._base}: {_reason(error)}") from None
        return reply

    def close(self) -> None:
        """Log out, as far as the service still answers, and end the connection."""
        pool, session = self._pool, self._session
        self._pool, self._session = None, ""
        if pool is None:
            return
        try:
            if session:
                self._request(pool, "DELETE", session).drain_conn()
        except (urllib3.exceptions.HTTPError, OSError):
            return  # its session ends by itself
        finally:
            pool.close()

    def _get(self, path: str) -> RedfishReply:
        if self._pool is None:
            self._pool = self._connect()
        answer = self._request(self._pool, "GET", path)
        body = answer.read(_MAX_BYTES + 1, decode_content=True)
        if len(body) > _MAX_BYTES:
            raise Retryable(f"{self._base}: GET {path}: more than {_MAX_BYTES} bytes")
        answer.drain_conn()
        if answer.status != 200:
            return RedfishReply(answer.status)
        try:
            return RedfishReply(200, json.loads(body))
        except ValueError:
            raise Retryable(f"{self._base}: GET {path}: no JSON document") from None

    def _connect(self) -> urllib3.HTTPConnectionPool:
        """Open the connection and log in."""
        login = self._login
        self._headers = dict(_HEADERS)
        pool = urllib3.connection_from_url(
            self._base, timeout=login.timeout_s, retries=False, **({"ssl_context": self._tls()} if self._is_tls else {})
        )
        if not login.user:
            return pool
        password = Secret(login.password_file).read() if login.password_file else ""
        if login.auth == "basic":
            self._headers |= urllib3.make_headers(basic_auth=f"{login.user}:{password}")
            return pool
        answer = self._request(pool, "POST", _SESSIONS, {"UserName": login.user, "Password": password})
        answer.drain_conn()
        token, location = answer.headers.get("X-Auth-Token", ""), answer.headers.get("Location", "")
        if not token:
            pool.close()
            raise Retryable(f"{self._base}: login of {login.user!r} refused: HTTP {answer.status}")
        self._headers["X-Auth-Token"] = token
        self._session = location if location.startswith((self._base + "/", "/")) else ""
        return pool

    @property
    def _is_tls(self) -> bool:
        return self._base.startswith("https:")

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._login.ca_file or None)
        if not self._login.verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the settings ask for it
        return context

    def _request(
        self, pool: urllib3.HTTPConnectionPool, method: str, path: str, body: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        if self._wait is not None:
            self._wait()
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        path = path.removeprefix(self._base)
        return pool.urlopen(method, path, data, headers, redirect=False, preload_content=False)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.SSLError):
        return "TLS: the certificate is not trusted; name its authority in ca_file"
    if isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ProtocolError):
        return "cannot connect"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer within the timeout"
    return f"{type(error).__name__}: {error}"
