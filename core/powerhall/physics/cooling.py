"""Cooling load of a hall: heat per medium, and capacity and power of its plants in given weather.

The models of the plants (`powerhall.physics.plants`) are monotone in the weather and convex in the heat, so that
planners can linearise them safely.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather

__all__ = [
    "CooledHall",
    "HallLoad",
    "PowerChain",
    "hall_load",
    "media",
    "medium_load",
    "needs_weather",
    "plant_capacity_w",
    "plant_power_w",
]


class PowerChain(Protocol):
    """The power chain of a hall."""

    def power_w(self, it_power_w: float) -> float:
        """Return its losses in W at this IT power."""


class CooledHall(Protocol):
    """Properties of a hall that the models of this module read."""

    @property
    def plants(self) -> Sequence[Plant]:
        """The cooling plants of the hall."""

    @property
    def losses(self) -> PowerChain:
        """The power chain, whose losses heat the air."""


@dataclass(frozen=True, slots=True)
class HallLoad:
    """A hall's load at one moment: heat and capacity per medium, power of plants and power chain, all in W."""

    it_power_w: float
    heat_w: Mapping[str, float]
    capacity_w: Mapping[str, float]
    cooling_power_w: float
    loss_power_w: float

    @property
    def facility_power_w(self) -> float:
        """IT, cooling and losses together in W."""
        return self.it_power_w + self.cooling_power_w + self.loss_power_w

    @property
    def cooled(self) -> bool:
        """Whether every medium's heat stays within its capacity."""
        return all(self.heat_w[m] <= self.capacity_w[m] + 1e-6 for m in self.heat_w)


def plant_capacity_w(plant: Plant, weather: Weather) -> float:
    """Return the heat in W that the plant can take up in this weather; never above its rated capacity."""
    return kind_of(plant).capacity_w(plant, weather)


def plant_power_w(plant: Plant, heat_w: float, weather: Weather) -> float:
    """Return the plant's power in W for this heat; above capacity the same curves go on, so that excess shows."""
    return kind_of(plant).power_w(plant, heat_w, weather)


def needs_weather(hall: CooledHall) -> bool:
    """Return whether capacity or power of any plant of the hall depends on the weather."""
    return any(kind_of(plant).needs_weather for plant in hall.plants)


def media(hall: CooledHall) -> tuple[str, ...]:
    """Return the media that the hall's heat is split into: ("all",), ("liquid", "air"), or () without a plant."""
    serves = {plant.serves for plant in hall.plants}
    if not serves:
        return ()
    return ("all",) if "all" in serves else ("liquid", "air")


def medium_load(hall: CooledHall, medium: str, heat_w: float, weather: Weather) -> tuple[float, float]:
    """Return (capacity, power) in W of the plants that take this medium's heat.

    Plants that serve the same medium share its heat in proportion to their capacity.
    """
    plants = [(plant, plant_capacity_w(plant, weather)) for plant in hall.plants if plant.serves == medium]
    total = sum(c for _, c in plants)
    power_w = 0.0
    for plant, own in plants:
        share = own / total if total > 0 else 1.0 / len(plants)
        power_w += plant_power_w(plant, heat_w * share, weather)
    return total, power_w


def hall_load(
    hall: CooledHall, liquid_w: float, air_w: float, weather: Weather, stored_w: Mapping[str, float] | None = None
) -> HallLoad:
    """Return the hall's load for IT power given off to liquid and to air in W; losses of the power chain heat the air.

    `stored_w` is the heat that storages take off the plants, per medium (negative: heat that they add).
    """
    it_w = liquid_w + air_w
    loss_w = hall.losses.power_w(it_w)
    parts = {"all": it_w + loss_w, "liquid": liquid_w, "air": air_w + loss_w}
    heat = {medium: parts[medium] - (stored_w or {}).get(medium, 0.0) for medium in media(hall)}
    capacity: dict[str, float] = {}
    cooling_w = 0.0
    for medium, heat_w in heat.items():
        capacity[medium], power_w = medium_load(hall, medium, heat_w, weather)
        cooling_w += power_w
    return HallLoad(it_w, heat, capacity, cooling_w, loss_w)
