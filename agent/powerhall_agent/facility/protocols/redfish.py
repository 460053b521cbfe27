"""Redfish (DMTF DSP0266): one GET per resource that the map names, or where a chassis shows its readings."""

from typing import Annotated, Final, Literal

import msgspec

from powerhall.runtime.errors import Retryable
from powerhall_agent.facility.device import Device, Pause
from powerhall_agent.facility.points import DeviceMap, MapFile, Point
from powerhall_agent.facility.reader import DeviceProtocol, Pacer, ReadResult
from powerhall_agent.redfish.chassis import identifier
from powerhall_agent.redfish.client import RedfishClient, RedfishLogin
from powerhall_agent.redfish.host import HostReadings, NoReading
from powerhall_agent.redfish.leaks import Leaks, node_leaks, unit_leaks
from powerhall_agent.redfish.values import pointed

__all__ = ["REDFISH", "RedfishDevice", "RedfishPoint", "RedfishReader"]

_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_ABSENT: Final = (400, 404, 405, 410, 501)
_HOST: Final = "host"
_ROOT: Final = "/redfish/v1"


class RedfishDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol", tag="redfish"):
    """A Redfish service; `member` is the id of the chassis or CDU, or `host`: the chassis of the server itself."""

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
    """A number in a resource: its path, in which {member} stands for the device's `member`, and a JSON pointer.

    With `find` in their place it is looked for in the chassis, wherever its maker shows it.
    """

    path: Annotated[str, msgspec.Meta(pattern="^(/redfish/v1(/.*)?)?$")] = ""
    pointer: Annotated[str, msgspec.Meta(pattern="^(/.*)?$")] = ""
    find: Literal["", "power", "intake_temp", "leak"] = ""

    def __post_init__(self) -> None:
        """Refuse a point without a place, and one with two."""
        Point.__post_init__(self)
        if bool(self.find) == bool(self.path or self.pointer) or bool(self.path) != bool(self.pointer):
            raise ValueError(f"{self.name}: needs path and pointer, or find")


class RedfishReader:
    """Reads one service; a resource that is absent is a problem of its own points only."""

    def __init__(self, device: RedfishDevice, points: DeviceMap) -> None:
        """Prepare; nothing is sent yet."""
        login = RedfishLogin(
            device.address, device.timeout_s, device.user, device.password_file, device.auth, device.verify_tls,
            device.ca_file,
        )  # fmt: skip
        self._device, self._address = device, device.address.rstrip("/")
        self._client = RedfishClient(login, Pacer(device.pause_s).wait)
        self._chassis = HostReadings(self._client, "" if device.member == _HOST else device.member)
        if device.member != _HOST:  # a power shelf or a rack draws more than a host
            self._chassis.max_power_w = max((point.max for point in points.points), default=0.0)
        self._leaks: Leaks = (
            node_leaks(self._client, _ROOT)
            if device.member == _HOST
            else unit_leaks(self._client, _ROOT, device.member)
        )
        self._by_path: dict[str, list[RedfishPoint]] = {}
        for point in points.points:
            if isinstance(point, RedfishPoint):
                self._by_path.setdefault(point.path, []).append(point)

    def read(self) -> ReadResult:
        """Read every resource once."""
        result = ReadResult()
        for path, points in self._by_path.items():
            if not path:
                self._find(points, result)
            elif "{member}" not in path:
                self._read_path(path, points, result)
            elif member := self._member(points, result):
                self._read_path(path.replace("{member}", member), points, result)
        return result

    def close(self) -> None:
        """Log out and end the connection."""
        self._client.close()

    def _member(self, points: list[RedfishPoint], result: ReadResult) -> str:
        """Return the id that stands for {member}; "" where the host was not found."""
        if self._device.member != _HOST:
            return self._device.member
        try:
            return identifier(self._chassis.find().chassis)
        except NoReading as error:
            result.problems.update({point.name: str(error) for point in points})
            return ""

    def _find(self, points: list[RedfishPoint], result: ReadResult) -> None:
        """Read the points that are looked for in the chassis."""
        if any(point.find != "leak" for point in points):
            self._find_power([point for point in points if point.find != "leak"], result)
        for point in points:
            if point.find == "leak":
                state = self._leaks.read()
                if state is None:
                    result.problems[point.name] = "no leak detector tells its state"
                else:
                    result.values[point.name] = state

    def _find_power(self, points: list[RedfishPoint], result: ReadResult) -> None:
        try:
            power_w, intake_c = self._chassis.read()
        except NoReading as error:
            result.problems.update({point.name: str(error) for point in points})
            return
        for point in points:
            value = power_w if point.find == "power" else intake_c
            if value is None:
                result.problems[point.name] = "the chassis does not show it"
            else:
                result.values[point.name] = value

    def _read_path(self, path: str, points: list[RedfishPoint], result: ReadResult) -> None:
        reply = self._client.get(path)
        if reply.status in _ABSENT:
            result.problems.update({point.name: f"GET {path}: HTTP {reply.status}" for point in points})
            return
        if reply.status != 200:
            self.close()
            raise Retryable(f"{self._address}: GET {path}: HTTP {reply.status}")
        if reply.problem:
            result.problems.update({point.name: reply.problem for point in points})
            return
        for point in points:
            try:
                result.values[point.name] = pointed(reply.document, point.pointer)
            except LookupError as error:
                result.problems[point.name] = f"{path}: {error.args[0]}"


REDFISH = DeviceProtocol("redfish", RedfishDevice, MapFile[RedfishPoint], RedfishReader)
