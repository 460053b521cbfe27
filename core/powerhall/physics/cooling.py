"""What a hall's cooling plants can take up in given weather, and what they draw for it.

Simple steady-state models, monotone in the weather and convex in the heat, so that planners can linearise them safely:

* dry cooler: capacity is proportional to the distance of the supply temperature from the dry bulb, zero where the air
  is as warm as the supply; fans follow the cube of the load (fan affinity law).
* tower and chiller: the tower's approach falls with the wet bulb (values computed from the YorkCalc correlation of
  EnergyPlus at a range of 5.56 K and L/G = 1); free cooling while wet bulb, tower approach and heat exchanger approach
  stay below the supply temperature; otherwise the chiller, whose coefficient of performance falls by 2.2 % per K of
  condenser water (mid of 1.7 to 2.8 % computed from the EnergyPlus chillers York YK and Carrier 19XR) and whose power
  at part load p is (p + p**2) / 2 of full-load power (29 % better at 60 % load in the same data).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from powerhall.site.topology import Hall, Plant, Site

__all__ = [
    "HallLoad",
    "Weather",
    "facility_power_w",
    "hall_load",
    "media",
    "medium_load",
    "plant_capacity_w",
    "plant_power_w",
]

_TOWER_APPROACH = ((5.0, 9.4), (10.0, 7.8), (15.0, 6.3), (20.0, 5.1), (25.0, 4.0), (30.0, 3.1))
_COP_SLOPE_PER_K = 0.022
_CAPACITY_SLOPE_PER_K = 0.01


@dataclass(frozen=True, slots=True)
class Weather:
    """Outdoor air: dry-bulb and wet-bulb temperature in degC."""

    dry_bulb_c: float
    wet_bulb_c: float


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


def tower_approach_k(wet_bulb_c: float) -> float:
    """Return the distance of the tower's water from the wet bulb in K, interpolated, constant outside the table."""
    points = _TOWER_APPROACH
    if wet_bulb_c <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if wet_bulb_c <= x1:
            return y0 + (y1 - y0) * (wet_bulb_c - x0) / (x1 - x0)
    return points[-1][1]


def _condenser_c(wet_bulb_c: float) -> float:
    return wet_bulb_c + tower_approach_k(wet_bulb_c)


def _free(plant: Plant, weather: Weather) -> bool:
    return plant.free_cooling and _condenser_c(weather.wet_bulb_c) + plant.approach_k <= plant.supply_temp_c


def plant_capacity_w(plant: Plant, weather: Weather) -> float:
    """Return the heat in W that the plant can take up in this weather; never above its rated capacity."""
    if plant.kind == "fixed":
        return plant.capacity_w
    if plant.kind == "dry_cooler":
        design_k = max(plant.supply_temp_c - plant.rated_ambient_c, 0.1)
        return plant.capacity_w * min(1.0, max(0.0, (plant.supply_temp_c - weather.dry_bulb_c) / design_k))
    if _free(plant, weather):
        return plant.capacity_w
    above_k = _condenser_c(weather.wet_bulb_c) - _condenser_c(plant.rated_ambient_c)
    return plant.capacity_w * min(1.0, max(0.0, 1.0 - _CAPACITY_SLOPE_PER_K * above_k))


def plant_power_w(plant: Plant, heat_w: float, weather: Weather) -> float:
    """Return the plant's power in W for this heat; above capacity the same curves go on, so that excess shows."""
    capacity = plant_capacity_w(plant, weather)
    load = heat_w / capacity if capacity > 0 else (0.0 if heat_w <= 0 else 1.0)
    moved = plant.pump_power_w + plant.fan_power_w * load**3
    if plant.kind == "dry_cooler" or (plant.kind == "tower_chiller" and _free(plant, weather)):
        return moved
    cop = plant.cop
    if plant.kind == "tower_chiller":
        above_k = _condenser_c(weather.wet_bulb_c) - _condenser_c(plant.rated_ambient_c)
        cop *= max(0.2, 1.0 - _COP_SLOPE_PER_K * above_k)
    return moved + capacity / cop * (load + load**2) / 2


def media(hall: Hall) -> tuple[str, ...]:
    """Return what the hall's heat is split into: ("all",), ("liquid", "air"), or () without a plant."""
    serves = {plant.serves for plant in hall.plants}
    if not serves:
        return ()
    return ("all",) if "all" in serves else ("liquid", "air")


def medium_load(hall: Hall, medium: str, heat_w: float, weather: Weather) -> tuple[float, float]:
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
    hall: Hall, liquid_w: float, air_w: float, weather: Weather, stored_w: Mapping[str, float] | None = None
) -> HallLoad:
    """Return the hall's load for IT power given off to liquid and to air in W; losses of the power chain heat the air.

    `stored_w` is what stores of cooling take off the plants' heat, per medium (negative: what they add to it).
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


def facility_power_w(site: Site, it_w: Mapping[str, tuple[float, float]], weather: Weather) -> float:
    """Return the site's power at the meter in W for each hall's IT power as (liquid, air) in W."""
    return sum(hall_load(hall, *it_w[hall.zone], weather).facility_power_w for hall in site.halls)
