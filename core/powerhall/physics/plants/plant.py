"""A cooling plant, the interface of its kind, and the curves that several kinds share."""

from typing import Literal, Protocol

import msgspec

from powerhall.physics.plants.chiller_curves import ChillerCurves
from powerhall.physics.weather import Weather

__all__ = ["LATER_FIELDS", "Plant", "PlantKind", "compressor_power_w", "load_share", "moving_power_w"]


LATER_FIELDS = (
    "units",
    "min_part_load",
    "heat_rejection",
    "pad_effectiveness",
    "concentration_cycles",
    "drift_share",
    "curves",
)
"""Fields of a plant that count in a plan's id only where they differ from their defaults."""


_RANGES = {
    "units": (1, 64),
    "min_part_load": (0.0, 0.9),
    "pad_effectiveness": (0.1, 1.0),
    "concentration_cycles": (1.1, 50.0),
    "drift_share": (0.0, 0.01),
}


class Plant(msgspec.Struct, frozen=True):
    """A cooling plant of a hall.

    `kind` is a key of `powerhall.physics.plants.kinds.PLANT_KINDS`, which computes capacity and power from the weather.
    `serves` is the part of the heat that it takes. `capacity_w` holds at `rated_ambient_c`. It is that of all `units`,
    as are the powers of fans and pumps. Below `min_part_load` a unit runs part of the time.
    """

    name: str
    kind: str
    capacity_w: float
    serves: Literal["all", "liquid", "air"] = "all"
    supply_temp_c: float = 32.0
    return_rise_k: float = 10.0
    approach_k: float = 6.0
    rated_ambient_c: float = 25.0
    cop: float = 6.0
    fan_power_w: float = 0.0
    pump_power_w: float = 0.0
    free_cooling: bool = True
    units: int = 1
    min_part_load: float = 0.0
    heat_rejection: Literal["tower", "dry", "air"] = "tower"
    pad_effectiveness: float = 0.8
    concentration_cycles: float = 3.0
    drift_share: float = 8e-5
    curves: ChillerCurves | None = None

    def __post_init__(self) -> None:
        """Refuse values that formulas cannot take, also of a plan that somebody changed."""
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"plant {self.name}: {name} must be from {low:g} to {high:g}")
        if self.curves is not None and (wrong := self.curves.check()):
            raise ValueError(f"plant {self.name}: curves: {wrong}")


class PlantKind(Protocol):
    """A kind of plant. Models are steady-state and monotone in the weather; power never falls as the heat rises.

    They scale: twice the capacity, fans and pumps take twice the heat at twice the power.
    """

    name: str
    """The `kind` of the site file."""
    title: str
    """The name of the kind in reports."""
    needs_weather: bool
    """Whether capacity or power depend on the weather."""
    convex: bool
    """Whether power is convex in the heat at any capacity above 0. The bound of a plan is looser where it is not."""

    def capacity_w(self, plant: Plant, weather: Weather) -> float:
        """Return the heat in W that the plant can take up in this weather; never above its rated capacity."""

    def power_w(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return the plant's power in W for this heat; above capacity the same curve goes on, so that excess shows."""

    def water_l_per_h(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return the make-up water in litres an hour for this heat; 0 for a plant without a tower or pad."""


def load_share(heat_w: float, capacity_w: float) -> float:
    """Return heat over capacity; without capacity a plant with heat counts as fully loaded."""
    return heat_w / capacity_w if capacity_w > 0 else (0.0 if heat_w <= 0 else 1.0)


def moving_power_w(plant: Plant, load: float) -> float:
    """Return the power of pumps and fans in W: fans follow the cube of the load (fan affinity law)."""
    return plant.pump_power_w + plant.fan_power_w * load**3


def compressor_power_w(capacity_w: float, cop: float, load: float) -> float:
    """Return a chiller's power in W: `(p + p**2) / 2` of its full-load power at part load p.

    29 % better than full load at 60 % load in the EnergyPlus data of the chillers York YK and Carrier 19XR.
    """
    return capacity_w / cop * (load + load**2) / 2
