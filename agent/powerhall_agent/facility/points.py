"""Maps: which registers, resources or OIDs of a device hold which reading; one TOML file per kind of device."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.settings import convert, read_toml

__all__ = ["DeviceMap", "ModbusPoint", "Point", "RedfishPoint", "SnmpPoint", "load_map", "map_names"]

_MAPS = Path(__file__).parent / "maps"
_UNITS = (
    "w", "va", "var", "j", "v", "a", "hz", "c", "k", "percent", "ratio", "l_per_min", "m3_per_h", "pa", "kpa", "rpm",
    "s", "m_per_s",
)  # fmt: skip
_REGISTERS = {"u16": 1, "i16": 1, "u32": 2, "i32": 2, "f32": 2, "u64": 4, "i64": 4, "f64": 4}


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every reading has; the value is what the device shows, times `scale`, plus `offset`.

    `min` and `max` bound what the device can plausibly show, in the unit of the name. `wraps_at` makes it a counter:
    the number, as the device shows it, at which the counter starts again at zero; `max_per_s` is its fastest rise.
    """

    name: str
    min: float
    max: float
    scale: float = 1.0
    offset: float = 0.0
    stuck_after_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    wraps_at: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    max_per_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    def __post_init__(self) -> None:
        """Refuse a name without a unit and a range that holds nothing."""
        if not any(self.name.endswith(f"_{unit}") for unit in _UNITS) or not self.name.replace("_", "").isalnum():
            raise ValueError(f"name: {self.name!r}: must end in its unit: _{', _'.join(_UNITS)}")
        if not self.min < self.max:
            raise ValueError(f"{self.name}: min {self.min:g}: must be below max {self.max:g}")
        if self.scale == 0:
            raise ValueError(f"{self.name}: scale: 0: must not be zero")


class ModbusPoint(Point, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Registers at `address`, counted from 0 as they go over the wire (a manual's 30001 or 40001 is 0)."""

    kind: Literal["holding", "input"]
    address: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    type: Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"]
    byte_order: Literal["big", "little"] = "big"
    word_order: Literal["big", "little"] = "big"

    @property
    def registers(self) -> int:
        """How many registers the value takes."""
        return _REGISTERS[self.type]


class RedfishPoint(Point, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number in a resource: its path, in which {member} stands for the device's `member`, and a JSON pointer."""

    path: Annotated[str, msgspec.Meta(pattern="^/redfish/v1(/|$)")]
    pointer: Annotated[str, msgspec.Meta(pattern="^/")]


class SnmpPoint(Point, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number at an OID, in which {member} stands for the device's `member`."""

    oid: Annotated[str, msgspec.Meta(pattern=r"^1(\.([0-9]+|\{member\}))+$")]


class DeviceMap(msgspec.Struct, frozen=True):
    """The points of one kind of device, and where the list of them comes from."""

    protocol: str
    source: str
    points: tuple[Point, ...]


class _ModbusFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    protocol: Literal["modbus"]
    source: str
    point: tuple[ModbusPoint, ...]


class _RedfishFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    protocol: Literal["redfish"]
    source: str
    point: tuple[RedfishPoint, ...]


class _SnmpFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    protocol: Literal["snmp"]
    source: str
    point: tuple[SnmpPoint, ...]


_KINDS: dict[str, type[_ModbusFile] | type[_RedfishFile] | type[_SnmpFile]] = {
    "modbus": _ModbusFile,
    "redfish": _RedfishFile,
    "snmp": _SnmpFile,
}


def map_names() -> list[str]:
    """Return the names of the maps that come with Powerhall."""
    return sorted(path.stem for path in _MAPS.glob("*.toml"))


def load_map(name: str, folder: Path) -> DeviceMap:
    """Read a map of ours by its name, or a file that ends in .toml, relative to `folder`."""
    path = folder / name if name.endswith(".toml") else _MAPS / f"{name}.toml"
    if not name.endswith(".toml") and name not in map_names():
        raise ConfigError(f"map: {name!r}: must be a file that ends in .toml, or one of {', '.join(map_names())}")
    data = read_toml(path, dict[str, object])
    protocol = data.get("protocol")
    if not isinstance(protocol, str) or protocol not in _KINDS:
        raise Rejected.field(str(path), "protocol", protocol, f"must be one of {', '.join(_KINDS)}")
    found = convert(data, _KINDS[protocol], str(path))
    names = [point.name for point in found.point]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise ConfigError(f"{path}: point: {twice[0]!r} is there twice" if twice else f"{path}: point: there is none")
    return DeviceMap(protocol, found.source, tuple(found.point))
