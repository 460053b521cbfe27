"""facility.toml: the devices to read and where what they say goes."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.settings import read_toml
from powerhall_agent.daemon.agent_settings import OutputSettings, ShipSettings, SpoolSettings
from powerhall_agent.facility.points import DeviceMap, load_map

__all__ = ["Device", "FacilitySettings", "ModbusDevice", "RedfishDevice", "SnmpDevice", "load_facility"]

Seconds = Annotated[float, msgspec.Meta(ge=0.1, le=3600)]
Pause = Annotated[float, msgspec.Meta(ge=0, le=60)]
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol"):
    """What every device has; `pause_s` is the least time between two requests to it."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    address: str
    map: str
    hall: str = ""
    member: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]+$")] = "1"
    interval_s: Seconds = 5.0
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 2.0
    pause_s: Pause = 0.0
    weather: bool = False

    @property
    def host(self) -> str:
        """The host of HOST[:PORT]; IPv6 in brackets."""
        return self.address.rpartition(":")[0].strip("[]") if self._has_port() else self.address.strip("[]")

    def port(self, default: int) -> int:
        """The port of HOST[:PORT]."""
        return int(self.address.rpartition(":")[2]) if self._has_port() else default

    def _has_port(self) -> bool:
        host, colon, port = self.address.rpartition(":")
        return bool(colon) and port.isdigit() and (":" not in host or host.endswith("]"))

    def check_host(self) -> None:
        """Refuse an address that is no HOST[:PORT]."""
        if not self.host or any(char in self.address for char in "/ @") or not 0 < self.port(1) < 65536:
            raise ValueError(f"{self.name}: address: {self.address!r}: must be HOST or HOST:PORT")


class ModbusDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol", tag="modbus"):
    """A Modbus TCP device, or one behind a gateway by its `unit`."""

    unit: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    max_registers: Annotated[int, msgspec.Meta(ge=4, le=125)] = 100

    def __post_init__(self) -> None:
        """Refuse an address that is no HOST[:PORT]."""
        self.check_host()


class RedfishDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol", tag="redfish"):
    """A Redfish service; `member` is the id of the chassis or CDU."""

    pause_s: Pause = 0.1
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 5.0
    auth: Literal["basic", "session"] = "session"
    user: str = ""
    password_file: str = ""
    verify_tls: bool = True
    ca_file: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no URL, half of a login, and a password over a network without TLS."""
        scheme, _, rest = self.address.partition("://")
        if scheme not in {"http", "https"} or not rest or "@" in rest or "/" in rest.rstrip("/"):
            raise ValueError(f"{self.name}: address: {self.address!r}: must be https://HOST[:PORT]")
        if bool(self.user) != bool(self.password_file):
            raise ValueError(f"{self.name}: user and password_file go together")
        if self.user and scheme == "http" and not rest.startswith(_LOOPBACK):
            raise ValueError(f"{self.name}: address: {self.address!r}: must be https where there is a password")


class SnmpDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="protocol", tag="snmp"):
    """An SNMP agent; `member` is the index of the unit in its tables."""

    version: Literal["2c", "3"] = "3"
    community_file: str = ""
    user: str = ""
    auth: Literal["sha256", "sha384", "sha512", "sha1"] = "sha256"
    auth_file: str = ""
    privacy: Literal["aes128", "aes256"] = "aes128"
    privacy_file: str = ""

    def __post_init__(self) -> None:
        """Refuse a login that does not belong to the version."""
        self.check_host()
        if self.version == "2c" and (not self.community_file or self.user or self.auth_file or self.privacy_file):
            raise ValueError(f"{self.name}: version 2c: needs community_file and nothing else")
        if self.version == "3" and (not self.user or self.community_file):
            raise ValueError(f"{self.name}: version 3: needs user, auth_file and privacy_file")
        if self.privacy_file and not self.auth_file:
            raise ValueError(f"{self.name}: privacy_file: needs auth_file, too")


class FacilitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything in facility.toml; spool, ship and output are those of agent.toml."""

    site: str
    device: tuple[ModbusDevice | RedfishDevice | SnmpDevice, ...]
    spool: SpoolSettings = SpoolSettings(path="/var/lib/powerhall-agent/facility")
    ship: ShipSettings = ShipSettings()
    output: tuple[OutputSettings, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a file without devices, and two devices or outputs of one name."""
        if not self.device:
            raise ValueError("device: there is none; every device is a [[device]] table")
        for what, names in (("device", [d.name for d in self.device]), ("output", [o.name for o in self.output])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}.name: {twice[0]!r}: is there twice")


def load_facility(path: str | Path) -> tuple[FacilitySettings, dict[str, DeviceMap]]:
    """Read facility.toml and the maps of its devices, by device; files it names are relative to its folder."""
    path = Path(path)
    settings = read_toml(path, FacilitySettings)
    maps = {}
    for index, device in enumerate(settings.device):
        protocol = str(type(device).__struct_config__.tag)
        try:
            found = load_map(device.map, path.parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: device[{index}] {device.name}: {error}") from None
        if found.protocol != protocol:
            raise Rejected.field(str(path), f"device[{index}].map", device.map, f"is a map for {found.protocol}")
        if device.weather and "dry_bulb_c" not in {point.name for point in found.points}:
            raise Rejected.field(str(path), f"device[{index}].weather", True, "needs a map with a point dry_bulb_c")
        maps[device.name] = found
    return msgspec.structs.replace(settings, device=tuple(_resolve(d, path.parent) for d in settings.device)), maps


def _resolve(
    device: ModbusDevice | RedfishDevice | SnmpDevice, folder: Path
) -> ModbusDevice | RedfishDevice | SnmpDevice:
    """Make the files that a device names independent of the working folder."""
    keys = [field.name for field in msgspec.structs.fields(device) if field.name.endswith("_file")]
    return msgspec.structs.replace(
        device, **{key: str(folder / value) for key in keys if (value := getattr(device, key))}
    )
