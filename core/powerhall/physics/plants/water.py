"""Water that towers and pads use: evaporation, drift and blow-down, in litres an hour (a kg counts as a litre).

* Evaporation carries the latent part of the heat: heat over the heat of vaporisation, 2.501 MJ/kg less 2.381 kJ/kg
  per K (ASHRAE Handbook of Fundamentals, chapter 1). The latent part follows from air that leaves saturated at the mean
  temperature of the water (method `SaturatedExit` of EnergyPlus, Engineering Reference, "Cooling Towers"): less than 1
  in cold air, above 1 in air that is hotter and drier than the water.
* Drift is a share of the water that circulates; EnergyPlus takes 0.008 % where nothing is known.
* Blow-down keeps minerals at `concentration_cycles` times those of the make-up water: evaporation / (cycles - 1), less
  the drift (EnergyPlus, method `ConcentrationRatio`, 3 where nothing is known).
"""

from powerhall.physics.plants.plant import Plant
from powerhall.physics.psychrometrics import latent_share
from powerhall.physics.weather import Weather

__all__ = ["pad_water_l_per_h", "tower_water_l_per_h"]

_WATER_J_PER_KG_K = 4186.0
_LEAST_AIR_RISE_K = 4.0


def vaporisation_j_per_kg(temp_c: float) -> float:
    """Return the heat of vaporisation of water in J/kg."""
    return 2.501e6 - 2.381e3 * min(max(temp_c, 0.0), 60.0)


def tower_water_l_per_h(plant: Plant, rejected_w: float, water_c: float, weather: Weather) -> float:
    """Return the make-up of a tower that gives off this heat, from water that leaves it at `water_c`."""
    if rejected_w <= 0:
        return 0.0
    mean_c = water_c + plant.return_rise_k / 2
    share = latent_share(weather.dry_bulb_c, weather.wet_bulb_c, mean_c)
    evaporated = rejected_w * share / vaporisation_j_per_kg(mean_c)
    circulated = rejected_w / (_WATER_J_PER_KG_K * plant.return_rise_k)
    return _make_up_l_per_h(plant, evaporated, plant.drift_share * circulated)


def pad_water_l_per_h(plant: Plant, heat_w: float, cooled_k: float) -> float:
    """Return the make-up of a pad that cools the air by `cooled_k` before it takes up this heat.

    Fans follow the load, so that the air always rises by the same: from `rated_ambient_c` to `approach_k` below the
    return temperature.
    """
    if heat_w <= 0 or cooled_k <= 0:
        return 0.0
    leaves_c = plant.supply_temp_c + plant.return_rise_k - plant.approach_k
    rise_k = max(leaves_c - plant.rated_ambient_c, _LEAST_AIR_RISE_K)
    evaporated = heat_w * cooled_k / rise_k / vaporisation_j_per_kg(plant.rated_ambient_c)
    return _make_up_l_per_h(plant, evaporated, 0.0)


def _make_up_l_per_h(plant: Plant, evaporated_kg_per_s: float, drift_kg_per_s: float) -> float:
    blown_down = max(0.0, evaporated_kg_per_s / (plant.concentration_cycles - 1.0) - drift_kg_per_s)
    return 3600.0 * (evaporated_kg_per_s + drift_kg_per_s + blown_down)
