"""Redfish (DMTF DSP0266) by requests: one GET per resource that the map names, over a connection that is kept."""

import json

import requests
import urllib3

from powerhall.runtime.errors import Retryable
from powerhall.runtime.settings import Secret
from powerhall_agent.facility.gateway_settings import RedfishDevice
from powerhall_agent.facility.points import DeviceMap, RedfishPoint
from powerhall_agent.facility.reader import Pacer, ReadResult

__all__ = ["RedfishReader", "pointed"]

_SESSIONS = "/redfish/v1/SessionService/Sessions"
_MAX_BYTES = 4 * 1024 * 1024
_LOGIN_AGAIN = (401, 403)
_ABSENT = (400, 404, 405, 410, 501)


def pointed(document: object, pointer: str) -> float:
    """Return the number that an RFC 6901 pointer names; LookupError where there is none."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, list) and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        elif isinstance(document, dict) and key in document:
            document = document[key]
        else:
            raise LookupError(f"{pointer}: not in the resource")
    if isinstance(document, bool) or not isinstance(document, int | float):
        raise LookupError(  # noqa: TRY004 - one kind of error for "no such number"
            f"{pointer}: {document!r} is not a number"
        )
    return float(document)


class RedfishReader:
    """Reads one service; logs in where credentials are given, and again when the session has ended."""

    def __init__(self, device: RedfishDevice, points: DeviceMap) -> None:
        self._device = device
        self._base = device.address.rstrip("/")
        self._pacer = Pacer(device.pause_s)
        self._by_path: dict[str, list[RedfishPoint]] = {}
        for point in points.points:
            if isinstance(point, RedfishPoint):
                self._by_path.setdefault(point.path.replace("{member}", device.member), []).append(point)
        self._session: requests.Session | None = None
        self._location = ""

    def read(self) -> ReadResult:
        """Read every resource once; one that is absent is a problem of its points alone."""
        answer = ReadResult()
        try:
            for path, points in self._by_path.items():
                self._read_path(path, points, answer)
        except (requests.RequestException, ValueError) as error:
            self.close()
            raise Retryable(f"{self._base}: {_reason(error)}") from None
        except Retryable:
            self.close()
            raise
        return answer

    def close(self) -> None:
        """Log out, as far as the service still answers, and end the connection."""
        session, location = self._session, self._location
        self._session, self._location = None, ""
        if session is None:
            return
        try:
            if location:
                self._request(session, "DELETE", location).close()
        except requests.RequestException:
            return  # its session ends by itself
        finally:
            session.close()

    def _read_path(self, path: str, points: list[RedfishPoint], answer: ReadResult) -> None:
        reply = self._get(path)
        with reply:
            if reply.status_code in _ABSENT:
                answer.problems.update({point.name: f"GET {path}: HTTP {reply.status_code}" for point in points})
                return
            if reply.status_code != 200:
                raise Retryable(f"{self._base}: GET {path}: HTTP {reply.status_code}")
            body = reply.raw.read(_MAX_BYTES + 1, decode_content=True)
        if len(body) > _MAX_BYTES:
            raise Retryable(f"{self._base}: GET {path}: more than {_MAX_BYTES} bytes")
        document = json.loads(body)
        for point in points:
            try:
                answer.values[point.name] = pointed(document, point.pointer)
            except LookupError as error:
                answer.problems[point.name] = f"{path}: {error.args[0]}"

    def _get(self, path: str) -> requests.Response:
        if self._session is None:
            self._session = self._login()
        reply = self._request(self._session, "GET", path)
        if reply.status_code in _LOGIN_AGAIN and self._location:
            reply.close()
            self._location = ""
            self.close()
            self._session = self._login()
            reply = self._request(self._session, "GET", path)
        return reply

    def _request(
        self, session: requests.Session, method: str, path: str, body: dict[str, str] | None = None
    ) -> requests.Response:
        self._pacer.wait()
        url = path if path.startswith(self._base) else self._base + path
        return session.request(
            method, url, json=body, timeout=self._device.timeout_s, allow_redirects=False, stream=method == "GET"
        )

    def _login(self) -> requests.Session:
        device, session = self._device, requests.Session()
        session.trust_env = False  # no proxy and no .netrc between us and a device of the site
        session.verify = (device.ca_file or True) if device.verify_tls else False
        if not device.verify_tls:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the settings say so
        session.headers.update({"Accept": "application/json", "OData-Version": "4.0"})
        if not device.user:
            return session
        password = Secret(device.password_file).read()
        if device.auth == "basic":
            session.auth = (device.user, password)
            return session
        try:
            with self._request(session, "POST", _SESSIONS, {"UserName": device.user, "Password": password}) as reply:
                token, location = reply.headers.get("X-Auth-Token", ""), reply.headers.get("Location", "")
        except requests.RequestException:
            session.close()
            raise
        if not token:
            session.close()
            raise Retryable(f"{self._base}: login of {device.user!r} refused: HTTP {reply.status_code}")
        session.headers["X-Auth-Token"] = token
        self._location = location if location.startswith((self._base + "/", "/")) else ""
        return session


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS: the certificate is not trusted; name its authority in ca_file"
    if isinstance(error, requests.Timeout):
        return "no answer within the timeout"
    if isinstance(error, requests.ConnectionError):
        return "cannot connect"
    return f"{type(error).__name__}: {error}"
