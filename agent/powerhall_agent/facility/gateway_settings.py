"""facility.toml: the devices to read and where their readings go."""

from pathlib import Path

import msgspec

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.settings import read_toml
from powerhall_agent.facility.device import Device
from powerhall_agent.facility.points import DeviceMap
from powerhall_agent.facility.registry import AnyDevice, load_map, protocol_of
from powerhall_agent.settings.agent_settings import OutputSettings, ShipSettings, SpoolSettings

__all__ = ["FacilitySettings", "load_facility"]


class FacilitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything in facility.toml; spool, ship and output are those of agent.toml."""

    site: str
    """Tag `site` of every point."""
    device: tuple[AnyDevice, ...]
    """The devices to read."""
    spool: SpoolSettings = SpoolSettings(path="/var/lib/powerhall-agent/facility")
    """As in agent.toml; a folder of its own beside the agent's."""
    ship: ShipSettings = ShipSettings()
    """As in agent.toml."""
    output: tuple[OutputSettings, ...] = ()
    """As in agent.toml."""

    def __post_init__(self) -> None:
        """Refuse a file without devices, and two devices or outputs of one name."""
        if not self.device:
            raise ValueError("device: must have at least one [[device]] table")
        for what, names in (("device", [d.name for d in self.device]), ("output", [o.name for o in self.output])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}.name: {twice[0]!r}: must be unique")


def load_facility(path: str | Path) -> tuple[FacilitySettings, dict[str, DeviceMap]]:
    """Read facility.toml and the maps of its devices, by device; files it names are relative to its folder."""
    path = Path(path)
    settings = read_toml(path, FacilitySettings)
    maps = {}
    for index, device in enumerate(settings.device):
        protocol = protocol_of(device).name
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


def _resolve(device: Device, folder: Path) -> Device:
    """Make the files that a device names independent of the working folder."""
    keys = [field.name for field in msgspec.structs.fields(device) if field.name.endswith("_file")]
    return msgspec.structs.replace(
        device, **{key: str(folder / value) for key in keys if (value := getattr(device, key))}
    )
