"""Maps from registers, resources or OIDs of a kind of device to readings; one TOML file each."""

from typing import Annotated, Generic, TypeVar

import msgspec

__all__ = ["DeviceMap", "MapFile", "Point", "bounded"]

_UNITS = (
    "w", "va", "var", "j", "v", "a", "hz", "c", "k", "percent", "ratio", "l_per_min", "m3_per_h", "pa", "kpa", "rpm",
    "s", "m_per_s", "state",
)  # fmt: skip


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reading; its value is the number that the device shows, times `scale`, plus `offset`.

    `min` and `max` bound what the device can plausibly show, in the unit of the name. `energy_j` only rises, and so
    does what has `max_per_s`, its fastest rise, or `wraps_at`, the number, as the device shows it, at which it starts
    again at zero. `stuck_after_s` says that the value must move within this time. `optional` is a reading that not
    every model has.
    """

    name: str
    min: float
    max: float
    scale: float = 1.0
    offset: float = 0.0
    stuck_after_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    wraps_at: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    max_per_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    optional: bool = False

    @property
    def counts(self) -> bool:
        """Whether the value only rises; energy of another name may fall, such as that in a storage."""
        return self.wraps_at > 0 or self.max_per_s > 0 or self.name == "energy_j"

    def __post_init__(self) -> None:
        """Refuse a name without a unit and an empty range."""
        if not any(self.name.endswith(f"_{unit}") for unit in _UNITS) or not self.name.replace("_", "").isalnum():
            raise ValueError(f"name: {self.name!r}: must end in its unit: _{', _'.join(_UNITS)}")
        if not self.min < self.max:
            raise ValueError(f"{self.name}: min {self.min:g}: must be below max {self.max:g}")
        if self.scale == 0:
            raise ValueError(f"{self.name}: scale: 0: must not be zero")


def bounded(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Return the points with the fastest rise of energy: where it has none, the most power of the device."""
    most_w = max((point.max for point in points if point.name.endswith("power_w")), default=0.0)
    return tuple(
        msgspec.structs.replace(point, max_per_s=most_w)
        if point.counts and point.name.endswith("_j") and not point.max_per_s
        else point
        for point in points
    )


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
