"""Maps from registers, resources or OIDs of a kind of device to readings; one TOML file each."""

from typing import Annotated, Generic, TypeVar

import msgspec

__all__ = ["DeviceMap", "MapFile", "Point"]

_UNITS = (
    "w", "va", "var", "j", "v", "a", "hz", "c", "k", "percent", "ratio", "l_per_min", "m3_per_h", "pa", "kpa", "rpm",
    "s", "m_per_s",
)  # fmt: skip


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reading; its value is the number that the device shows, times `scale`, plus `offset`.

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
        """Refuse a name without a unit and an empty range."""
        if not any(self.name.endswith(f"_{unit}") for unit in _UNITS) or not self.name.replace("_", "").isalnum():
            raise ValueError(f"name: {self.name!r}: must end in its unit: _{', _'.join(_UNITS)}")
        if not self.min < self.max:
            raise ValueError(f"{self.name}: min {self.min:g}: must be below max {self.max:g}")
        if self.scale == 0:
            raise ValueError(f"{self.name}: scale: 0: must not be zero")


class DeviceMap(msgspec.Struct, frozen=True):
    """The points of one kind of device, and where the list of them comes from."""

    protocol: str
    source: str
    points: tuple[Point, ...]


P = TypeVar("P", bound=Point)


class MapFile(msgspec.Struct, Generic[P], frozen=True, forbid_unknown_fields=True):
    """The file of a map."""

    protocol: str
    source: str
    point: tuple[P, ...]
