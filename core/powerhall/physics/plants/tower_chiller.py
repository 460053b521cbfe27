"""A cooling tower with a chiller, and free cooling while the wet bulb allows it.

The tower's approach falls with the wet bulb (values computed from the YorkCalc correlation of EnergyPlus at a range of
5.56 K and L/G = 1). Free cooling while wet bulb, tower approach and heat exchanger approach stay below the supply
temperature; otherwise the chiller, whose coefficient of performance falls by 2.2 % per K of condenser water (mid of 1.7
to 2.8 % computed from the EnergyPlus chillers York YK and Carrier 19XR).
"""

from functools import lru_cache
from itertools import pairwise

from powerhall.physics.plants.plant import Plant, compressor_power_w, load_share, moving_power_w
from powerhall.physics.plants.water import tower_water_l_per_h
from powerhall.physics.weather import Weather

__all__ = ["TowerChiller", "tower_approach_k"]

_TOWER_APPROACH = ((5.0, 9.4), (10.0, 7.8), (15.0, 6.3), (20.0, 5.1), (25.0, 4.0), (30.0, 3.1))
"""Wet bulb in degC, approach in K."""
_COP_SLOPE_PER_K = 0.022
_CAPACITY_SLOPE_PER_K = 0.01


@lru_cache(maxsize=4096)
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


def _above_rated_k(plant: Plant, weather: Weather) -> float:
    return _condenser_c(weather.wet_bulb_c) - _condenser_c(plant.rated_ambient_c)


def _is_free(plant: Plant, weather: Weather) -> bool:
    return plant.free_cooling and _condenser_c(weather.wet_bulb_c) + plant.approach_k <= plant.supply_temp_c


class TowerChiller:
    """Full capacity under free cooling; the chiller's capacity and performance fall with the wet bulb."""

    name = "tower_chiller"
    title = "cooling tower and chiller"
    needs_weather = True
    convex = True

    def capacity_w(self, plant: Plant, weather: Weather) -> float:
        """Return the capacity in W at this wet bulb."""
        if _is_free(plant, weather):
            return plant.capacity_w
        share = 1.0 - _CAPACITY_SLOPE_PER_K * _above_rated_k(plant, weather)
        return plant.capacity_w * min(1.0, max(0.0, share))

    def power_w(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return pumps and fans in W, and the compressor where free cooling does not do."""
        load = load_share(heat_w, self.capacity_w(plant, weather))
        moved_w = moving_power_w(plant, load)
        if _is_free(plant, weather):
            return moved_w
        return moved_w + self._compressor_w(plant, load, weather)

    def water_l_per_h(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return the water that the tower uses for the heat and the compressor's power."""
        rejected_w = heat_w
        if not _is_free(plant, weather):
            load = load_share(heat_w, self.capacity_w(plant, weather))
            rejected_w += self._compressor_w(plant, load, weather)
        return tower_water_l_per_h(plant, rejected_w, _condenser_c(weather.wet_bulb_c), weather)

    def _compressor_w(self, plant: Plant, load: float, weather: Weather) -> float:
        cop = plant.cop * max(0.2, 1.0 - _COP_SLOPE_PER_K * _above_rated_k(plant, weather))
        return compressor_power_w(self.capacity_w(plant, weather), cop, load)
