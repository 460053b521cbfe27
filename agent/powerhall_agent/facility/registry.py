"""Protocols by name, and their kinds of device, readers and maps.

A further protocol is one file in `protocols/` and one entry here; its maps lie in `maps/`.
"""

import functools
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.settings import convert, read_toml
from powerhall_agent.facility.device import Device
from powerhall_agent.facility.points import DeviceMap, bounded
from powerhall_agent.facility.protocols.bacnet import BACNET
from powerhall_agent.facility.protocols.modbus import MODBUS
from powerhall_agent.facility.protocols.mqtt import MQTT
from powerhall_agent.facility.protocols.opcua import OPCUA
from powerhall_agent.facility.protocols.redfish import REDFISH
from powerhall_agent.facility.protocols.snmp import SNMP
from powerhall_agent.facility.reader import DeviceProtocol, Reader

__all__ = ["PROTOCOLS", "AnyDevice", "load_map", "map_names", "open_reader", "protocol_of"]

PROTOCOLS: Final[dict[str, DeviceProtocol]] = {
    entry.name: entry for entry in (BACNET, MODBUS, MQTT, OPCUA, REDFISH, SNMP)
}
_MAPS: Final = Path(__file__).parent / "maps"

if TYPE_CHECKING:
    AnyDevice = Device
else:  # the union by which settings are decoded
    AnyDevice = functools.reduce(operator.or_, (entry.device for entry in PROTOCOLS.values()))


def protocol_of(device: Device) -> DeviceProtocol:
    """Return the protocol of a device."""
    return next(entry for entry in PROTOCOLS.values() if isinstance(device, entry.device))


def open_reader(device: Device, points: DeviceMap) -> Reader:
    """Make the reader of a device; nothing is sent yet. A library that is not installed raises ConfigError."""
    try:
        return protocol_of(device).open(device, points)
    except ImportError as error:
        extra = protocol_of(device).extra
        raise ConfigError(
            f"gateway: needs the extra {extra!r} (missing: {error.name}); pip install 'powerhall[{extra}]'"
        ) from None


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
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise Rejected.field(str(path), "protocol", protocol, f"must be one of {', '.join(PROTOCOLS)}")
    found = convert(data, PROTOCOLS[protocol].map_file, str(path))
    names = [point.name for point in found.point]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise ConfigError(f"{path}: point: {twice[0]!r}: must be unique" if twice else f"{path}: point: must hold one")
    return DeviceMap(protocol, found.source, bounded(tuple(found.point)))
