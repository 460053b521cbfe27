"""Redfish (DMTF DSP0266): one GET per resource that the map names."""

from typing import Annotated, Final, Literal

import msgspec

from powerhall.runtime.errors import Retryable
from powerhall_agent.base.redfish_client import RedfishClient, RedfishLogin
from powerhall_agent.facility.device import Device, Pause
from powerhall_agent.facility.points import DeviceMap, MapFile, Point
from powerhall_agent.facility.reader import DeviceProtocol, Pacer, ReadResult

__all__ = ["REDFISH", "RedfishDevice", "RedfishPoint", "RedfishReader", "pointed"]

_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_ABSENT: Final = (400, 404, 405, 410, 501)


class RedfishDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol", tag="redfish"):
    """A Redfish service; `member` is the id of the chassis or CDU."""

    pause_s: Pause = 0.1
    """Least time between two requests to this device."""
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 5.0
    """Longest wait for one answer."""
    auth: Literal["basic", "session"] = "session"
    """`session` logs in once; `basic` sends the password with every request."""
    user: str = ""
    """User; together with `password_file`."""
    password_file: str = ""
    """File with the password."""
    verify_tls: bool = True
    """Check the device's certificate."""
    ca_file: str = ""
    """Certificate authority of the device's certificate."""

    def __post_init__(self) -> None:
        """Refuse an address that is not a URL, half of a login, and a password over a network without TLS."""
        scheme, _, rest = self.address.partition("://")
        if scheme not in {"http", "https"} or not rest or "@" in rest or "/" in rest.rstrip("/"):
            raise ValueError(f"{self.name}: address: {self.address!r}: must be https://HOST[:PORT]")
        if bool(self.user) != bool(self.password_file):
            raise ValueError(f"{self.name}: user and password_file go together")
        if self.user and scheme == "http" and not rest.startswith(_LOOPBACK):
            raise ValueError(f"{self.name}: address: {self.address!r}: must be https where there is a password")


class RedfishPoint(Point, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number in a resource: its path, in which {member} stands for the device's `member`, and a JSON pointer."""

    path: Annotated[str, msgspec.Meta(pattern="^/redfish/v1(/|$)")]
    pointer: Annotated[str, msgspec.Meta(pattern="^/")]


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
    """Reads one service; a resource that is absent is a problem of its own points only."""

    def __init__(self, device: RedfishDevice, points: DeviceMap) -> None:
        """Prepare; nothing is sent yet."""
        login = RedfishLogin(
            device.address, device.timeout_s, device.user, device.password_file, device.auth, device.verify_tls,
            device.ca_file,
        )  # fmt: skip
        self._address = device.address.rstrip("/")
        self._client = RedfishClient(login, Pacer(device.pause_s).wait)
        self._by_path: dict[str, list[RedfishPoint]] = {}
        for point in points.points:
            if isinstance(point, RedfishPoint):
                self._by_path.setdefault(point.path.replace("{member}", device.member), []).append(point)

    def read(self) -> ReadResult:
        """Read every resource once."""
        result = ReadResult()
        for path, points in self._by_path.items():
            self._read_path(path, points, result)
        return result

    def close(self) -> None:
        """Log out and end the connection."""
        self._client.close()

    def _read_path(self, path: str, points: list[RedfishPoint], result: ReadResult) -> None:
        reply = self._client.get(path)
        if reply.status in _ABSENT:
            result.problems.update({point.name: f"GET {path}: HTTP {reply.status}" for point in points})
            return
        if reply.status != 200:
            self.close()
            raise Retryable(f"{self._address}: GET {path}: HTTP {reply.status}")
        for point in points:
            try:
                result.values[point.name] = pointed(reply.document, point.pointer)
            except LookupError as error:
                result.problems[point.name] = f"{path}: {error.args[0]}"


REDFISH = DeviceProtocol("redfish", RedfishDevice, MapFile[RedfishPoint], RedfishReader)
