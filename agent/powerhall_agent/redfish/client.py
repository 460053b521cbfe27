"""The Redfish client (DMTF DSP0266) of node and facility: GET over a kept connection, with a Basic or session login.

Requests go to the device directly: no proxy, no retry. A service that is busy (429 or 503) and says for how long
(`Retry-After`) gets no request before that, and its session is kept. A redirect is followed within the service alone
(same scheme, host and port): many services send a path without its trailing slash on to the one with it. A kept
connection that the service has closed is opened again. Passwords are read from their file at every login and appear in
no message.
"""

import email.utils
import json
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import urllib3
import urllib3.exceptions

from powerhall.runtime.decode.http_answer import limit_pool, read_answer
from powerhall.runtime.decode.json_data import decode_plain_json
from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.files import check_regular
from powerhall.runtime.settings import Secret

__all__ = ["RedfishClient", "RedfishLogin", "RedfishReply"]

_SESSIONS: Final = "/redfish/v1/SessionService/Sessions"
_MOST_BYTES: Final = 4 * 1024 * 1024
"""Of one answer; the largest known resource of a chassis has 200 KiB."""
_SESSION_ENDED: Final = (401, 403)
"""403 is also the answer to a login without the right to a resource; a new session does not change that one."""
_FORBIDDEN: Final = 403
_BUSY: Final = (429, 503)
_LONGEST_PAUSE_S: Final = 600.0
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MOST_REDIRECTS: Final = 3
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
    """The status of a GET, and the JSON document where it is 200; `problem` says why a 200 has none."""

    status: int
    document: object = None
    problem: str = ""


class RedfishClient:
    """One service; used by one thread at a time. Any failure raises Retryable and ends connection and session."""

    def __init__(
        self,
        login: RedfishLogin,
        wait: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wait` is called before every request, to keep them apart; nothing is sent yet."""
        self._login, self._wait, self._clock = login, wait, clock
        self._base = login.url.rstrip("/")
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._headers: dict[str, str] = {}
        self._session = ""
        self._moved: dict[str, str] = {}
        self._forbidden: set[str] = set()
        """Paths that a new session had no right to either."""
        self._busy_until_s = 0.0

    def get(self, path: str) -> RedfishReply:
        """Read a resource; a session that has ended is opened again, once."""
        left_s = self._busy_until_s - self._clock()
        if left_s > 0:
            raise Retryable(f"{self._base}: busy, and asks for a pause; {left_s:.0f} s of it are left")
        try:
            reply = self._get(path)
            if reply.status in _SESSION_ENDED and "X-Auth-Token" in self._headers and path not in self._forbidden:
                reply = self._get_anew(path, reply.status)
        except Retryable:
            self.close()
            raise
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self.close()
            raise Retryable(f"{self._base}: {_reason(error)}") from None
        return reply

    def _get_anew(self, path: str, status: int) -> RedfishReply:
        """Read a resource by a new session; one that this is forbidden, too, is not tried so again."""
        if status != _FORBIDDEN:
            self._session = ""  # it has ended: there is none to log out of
        self._end()
        reply = self._get(path)
        if reply.status == _FORBIDDEN:
            self._forbidden.add(path)
        return reply

    @property
    def address(self) -> str:
        """`http(s)://HOST[:PORT]`."""
        return self._base

    def close(self) -> None:
        """Log out, as far as the service still answers, and end the connection; a busy service keeps the session."""
        self._forbidden.clear()
        self._end()

    def _end(self) -> None:
        pool, session = self._pool, self._session
        self._pool = None
        is_busy = self._clock() < self._busy_until_s
        if not is_busy:
            self._session = ""
        if pool is None:
            return
        try:
            if session and not is_busy:
                self._request(pool, "DELETE", session).drain_conn()
        except (urllib3.exceptions.HTTPError, OSError):
            return  # its session ends by itself
        finally:
            pool.close()

    def _get(self, path: str) -> RedfishReply:
        if self._pool is None:
            self._pool = self._connect()
        answer = self._request(self._pool, "GET", path)
        source = f"{self._base}: GET {path}"
        body = read_answer(answer, source, _MOST_BYTES)
        if answer.status in _BUSY and self._busy_until_s:
            raise Retryable(f"{source}: busy (HTTP {answer.status}), and asks for a pause")
        if answer.status != 200:
            return RedfishReply(answer.status)
        try:
            return RedfishReply(200, decode_plain_json(body, source, _MOST_BYTES))
        except Rejected as error:
            return RedfishReply(200, None, f"{error}; no JSON document")

    def _connect(self) -> urllib3.HTTPConnectionPool:
        """Open the connection and log in."""
        login = self._login
        kept = self._headers if self._session else {}
        self._headers = kept or dict(_HEADERS)
        pool = urllib3.connection_from_url(
            self._base, timeout=login.timeout_s, retries=False, **({"ssl_context": self._tls()} if self._is_tls else {})
        )
        limit_pool(pool, _MOST_BYTES)
        if not login.user or kept:
            return pool
        password = Secret(login.password_file).read() if login.password_file else ""
        if login.auth == "basic":
            self._headers |= urllib3.make_headers(basic_auth=f"{login.user}:{password}")
            return pool
        answer = self._request(pool, "POST", _SESSIONS, {"UserName": login.user, "Password": password})
        answer.drain_conn()
        token, place = answer.headers.get("X-Auth-Token", ""), _split(answer.headers.get("Location", ""), self._base)
        if not token:
            pool.close()
            raise Retryable(f"{self._base}: login of {login.user!r} refused: HTTP {answer.status}")
        self._headers["X-Auth-Token"] = token
        # Services often give their own address, which need not be the one that we have: its path alone counts.
        self._session = place.path if place is not None and place.path.startswith("/redfish/") else ""
        return pool

    @property
    def _is_tls(self) -> bool:
        return self._base.startswith("https:")

    def _tls(self) -> ssl.SSLContext:
        check_regular(self._login.ca_file)  # it would be waited for if it were a pipe
        context = ssl.create_default_context(cafile=self._login.ca_file or None)
        if not self._login.verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the settings ask for it
        return context

    def _request(
        self, pool: urllib3.HTTPConnectionPool, method: str, path: str, body: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; follow redirects within the service, and remember where they lead."""
        asked = path = path.removeprefix(self._base)
        path = self._moved.get(asked, asked)
        for _ in range(_MOST_REDIRECTS + 1):
            answer = self._send(pool, method, path, body)
            if answer.status not in _REDIRECTS:
                if path != asked:
                    self._moved[asked] = path
                return answer
            answer.drain_conn()
            path = self._within(path, answer.headers.get("Location", ""))
        self._moved.pop(asked, None)
        raise Retryable(f"{self._base}: {method} {asked}: more than {_MOST_REDIRECTS} redirects")

    def _send(
        self, pool: urllib3.HTTPConnectionPool, method: str, path: str, body: dict[str, str] | None
    ) -> urllib3.BaseHTTPResponse:
        if self._wait is not None:
            self._wait()
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        answer = pool.urlopen(method, path, data, headers, redirect=False, preload_content=False)
        pause_s = _pause_s(answer.headers) if answer.status in _BUSY else 0.0
        self._busy_until_s = self._clock() + pause_s if pause_s else 0.0
        return answer

    def _within(self, path: str, location: str) -> str:
        """Return the path of a redirect to this service; one to another place is refused with what to do."""
        target = _split(location, self._base + path) if location else None
        if target is None or _origin(target) != _origin(_split(self._base, "")):
            where = f"{target.scheme}://{target.netloc}" if target is not None else repr(location[:60])
            raise Retryable(f"{self._base}: GET {path}: redirects to {where}, which is not followed; give that address")
        return target.path + (f"?{target.query}" if target.query else "")


def _split(url: str, beside: str) -> urllib.parse.SplitResult | None:
    """Split an address, which may be relative to another; None where it is none."""
    try:
        found = urllib.parse.urlsplit(urllib.parse.urljoin(beside, url))
        return found if found.hostname and found.port != 0 else None
    except ValueError:  # brackets that do not close, a port that is no number
        return None


def _origin(place: urllib.parse.SplitResult | None) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port."""
    if place is None:
        return None
    return place.scheme, (place.hostname or "").lower(), place.port or {"http": 80, "https": 443}.get(place.scheme)


def _pause_s(headers: Mapping[str, str]) -> float:
    """Return for how long a busy service asks for no requests; 0 where it does not say."""
    text = headers.get("Retry-After", "").strip()
    seconds = float(digits(text) or 0)
    then, now = _time_s(text), _time_s(headers.get("Date", ""))  # both by the service's own clock
    if then is not None:
        seconds = then - (time.time() if now is None else now)
    return min(max(0.0, seconds), _LONGEST_PAUSE_S)


def _time_s(text: str) -> float | None:
    """Return the time of an HTTP date in seconds since the epoch; None where the text is none."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.SSLError):
        return "TLS: the certificate is not trusted; name its authority in ca_file"
    if isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ProtocolError):
        return "cannot connect"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer within the timeout"
    return f"{type(error).__name__}: {error}"
