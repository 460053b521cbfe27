"""Cooling load of a hall: heat per medium, and capacity and power of its plants in given weather.

The models of the plants (`powerhall.physics.plants`) are monotone in the weather, and power never falls as the heat
rises, so that planners can bound them safely.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.physics.plants.staging import units_running
from powerhall.physics.weather import Weather

__all__ = [
    "CooledHall",
    "HallLoad",
    "PlantLoad",
    "PowerChain",
    "hall_load",
    "has_convex_plants",
    "media",
    "medium_load",
    "needs_weather",
    "plant_capacity_w",
    "plant_loads",
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

    def cooling_fields(self) -> dict[str, float]:
        """Return the fields of the hall's roll-up about heat: in all, per medium, and of the most loaded medium.

        The sums alone would hide a medium that is full beside one that is not.
        """
        if not self.heat_w:
            return {"heat_w": 0.0, "cooling_capacity_w": 0.0}
        fields = {"heat_w": sum(self.heat_w.values()), "cooling_capacity_w": sum(self.capacity_w.values())}
        for medium in self.heat_w.keys() & {"liquid", "air"}:
            fields[f"heat_{medium}_w"] = self.heat_w[medium]
            fields[f"cooling_capacity_{medium}_w"] = self.capacity_w[medium]
        fields["cooling_load_percent"] = max(_load_percent(w, self.capacity_w[m]) for m, w in self.heat_w.items())
        fields["cooling_headroom_w"] = min(self.capacity_w[m] - w for m, w in self.heat_w.items())
        return fields


def _load_percent(heat_w: float, capacity_w: float) -> float:
    """Return heat per capacity in percent; 999 at most, which also stands for heat without capacity."""
    if heat_w <= 0.0:
        return 0.0
    return min(999.0, 100.0 * heat_w / capacity_w) if capacity_w > 0.0 else 999.0


def plant_capacity_w(plant: Plant, weather: Weather) -> float:
    """Return the heat in W that the plant can take up in this weather; never above its rated capacity."""
    return kind_of(plant).capacity_w(plant, weather)


def plant_power_w(plant: Plant, heat_w: float, weather: Weather) -> float:
    """Return the plant's power in W for this heat; above capacity the same curves go on, so that excess shows."""
    return kind_of(plant).power_w(plant, heat_w, weather)


def needs_weather(hall: CooledHall) -> bool:
    """Return whether capacity or power of any plant of the hall depends on the weather."""
    return any(kind_of(plant).needs_weather for plant in hall.plants)


def has_convex_plants(hall: CooledHall) -> bool:
    """Return whether the power of every plant of the hall is convex in its heat."""
    return all(kind_of(plant).convex for plant in hall.plants)


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


@dataclass(frozen=True, slots=True)
class PlantLoad:
    """A plant at one moment: the heat that it takes and its power in W, units that run, water in litres an hour."""

    plant: Plant
    heat_w: float
    power_w: float
    units: int
    water_l_per_h: float


def plant_loads(hall: CooledHall, heat_w: Mapping[str, float], weather: Weather) -> list[PlantLoad]:
    """Return the load of each plant of the hall for its heat per medium; plants share it as in `medium_load`."""
    capacities = [plant_capacity_w(plant, weather) for plant in hall.plants]
    found: list[PlantLoad] = []
    for plant, own in zip(hall.plants, capacities, strict=True):
        same = [c for p, c in zip(hall.plants, capacities, strict=True) if p.serves == plant.serves]
        share = own / sum(same) if sum(same) > 0 else 1.0 / len(same)
        taken_w, kind = heat_w.get(plant.serves, 0.0) * share, kind_of(plant)
        units = units_running(kind, plant, taken_w, weather)
        water = kind.water_l_per_h(plant, taken_w, weather)
        found.append(PlantLoad(plant, taken_w, kind.power_w(plant, taken_w, weather), units, water))
    return found


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
