"""A chiller by an EnergyPlus curve set, with a tower, a dry cooler or air at its condenser.

The condenser's entering temperature follows the weather: wet bulb and the tower's approach (`tower`), dry bulb and
`approach_k` (`dry`), or the dry bulb (`air`). The evaporator leaves `supply_temp_c`. `capacity_w` and `cop` hold at the
reference point of the curves. With tower or dry cooler, free cooling as in `tower_chiller`.
"""

from powerhall.physics.plants.chiller_curves import ChillerCurves, capacity_share, condenser_step, power_share
from powerhall.physics.plants.plant import Plant, load_share, moving_power_w
from powerhall.physics.plants.tower_chiller import tower_approach_k
from powerhall.physics.plants.water import tower_water_l_per_h
from powerhall.physics.weather import Weather

__all__ = ["Chiller"]


def _condenser_c(plant: Plant, weather: Weather) -> float:
    if plant.heat_rejection == "tower":
        return weather.wet_bulb_c + tower_approach_k(weather.wet_bulb_c)
    return weather.dry_bulb_c + (plant.approach_k if plant.heat_rejection == "dry" else 0.0)


def _is_free(plant: Plant, weather: Weather) -> bool:
    if plant.heat_rejection == "air" or not plant.free_cooling:
        return False
    return _condenser_c(plant, weather) + plant.approach_k <= plant.supply_temp_c


def _curves(plant: Plant) -> ChillerCurves:
    if plant.curves is None:
        raise ValueError(f"plant {plant.name}: kind 'chiller' needs curves")
    return plant.curves


class Chiller:
    """Capacity and power by the curve set; full capacity and no compressor under free cooling."""

    name = "chiller"
    title = "chiller"
    needs_weather = True
    convex = False

    def capacity_w(self, plant: Plant, weather: Weather) -> float:
        """Return the capacity in W in this weather; never above the rated one."""
        if _is_free(plant, weather):
            return plant.capacity_w
        step = condenser_step(_condenser_c(plant, weather))
        return plant.capacity_w * min(1.0, capacity_share(_curves(plant), plant.supply_temp_c, step))

    def power_w(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return pumps, fans and compressor in W."""
        load = load_share(heat_w, self.capacity_w(plant, weather))
        return moving_power_w(plant, load) + self._compressor_w(plant, heat_w, weather)

    def water_l_per_h(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return the water that the tower uses for the heat and the compressor's power."""
        if plant.heat_rejection != "tower":
            return 0.0
        rejected_w = heat_w + self._compressor_w(plant, heat_w, weather)
        return tower_water_l_per_h(plant, rejected_w, _condenser_c(plant, weather), weather)

    def _compressor_w(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        if _is_free(plant, weather):
            return 0.0
        step = condenser_step(_condenser_c(plant, weather))
        share = power_share(_curves(plant), plant.supply_temp_c, step, heat_w / plant.capacity_w)
        return plant.capacity_w / plant.cop * share
