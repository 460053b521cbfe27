"""A cooling plant, the interface of its kind, and the curves that several kinds share."""

from typing import Literal, Protocol

import msgspec

from powerhall.physics.weather import Weather

__all__ = ["Plant", "PlantKind", "compressor_power_w", "load_share", "moving_power_w"]


class Plant(msgspec.Struct, frozen=True):
    """A cooling plant of a hall.

    `kind` is a key of `powerhall.physics.plants.kinds.PLANT_KINDS`, which computes capacity and power from the weather.
    `serves` is the part of the heat that it takes. `capacity_w` holds at `rated_ambient_c`.
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


class PlantKind(Protocol):
    """A kind of plant. Models are steady-state, monotone in the weather and convex in the heat."""

    name: str
    """The `kind` of the site file."""
    title: str
    """The name of the kind in reports."""
    needs_weather: bool
    """Whether capacity or power depend on the weather."""

    def capacity_w(self, plant: Plant, weather: Weather) -> float:
        """Return the heat in W that the plant can take up in this weather; never above its rated capacity."""

    def power_w(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return the plant's power in W for this heat; above capacity the same curve goes on, so that excess shows."""


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
