"""An open or closed cooling tower without a chiller.

By the effectiveness model of Braun, Klein and Mitchell (ASHRAE Transactions 95(2), 1989) heat is proportional to the
difference between the enthalpy of saturated air at the temperature of the entering water and that of the outdoor air,
which is the enthalpy of saturated air at its wet bulb. The water's rise is proportional to the heat; with the enthalpy
of saturated air taken as straight over this rise, the capacity at a fixed supply temperature is

    capacity(wet bulb) = rated * (h(water) - h(wet bulb)) / (h(water) - h(rated wet bulb))

with water at `supply_temp_c - approach_k`; `approach_k` is that of the heat exchanger behind an open tower, or of the
coil inside a closed one.
"""

from powerhall.physics.plants.plant import Plant, load_share, moving_power_w
from powerhall.physics.plants.water import tower_water_l_per_h
from powerhall.physics.psychrometrics import saturated_enthalpy
from powerhall.physics.weather import Weather

__all__ = ["Evaporative"]


def _water_c(plant: Plant) -> float:
    return plant.supply_temp_c - plant.approach_k


class Evaporative:
    """Fans and pumps only; no capacity where the wet bulb is as warm as the water."""

    name = "evaporative"
    title = "evaporative cooler"
    needs_weather = True
    convex = True

    def capacity_w(self, plant: Plant, weather: Weather) -> float:
        """Return the capacity in W at this wet bulb."""
        water = saturated_enthalpy(_water_c(plant))
        rated = max(water - saturated_enthalpy(plant.rated_ambient_c), 100.0)
        share = (water - saturated_enthalpy(weather.wet_bulb_c)) / rated
        return plant.capacity_w * min(1.0, max(0.0, share))

    def power_w(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return pumps and fans in W."""
        return moving_power_w(plant, load_share(heat_w, self.capacity_w(plant, weather)))

    def water_l_per_h(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return the water that the tower uses."""
        return tower_water_l_per_h(plant, heat_w, _water_c(plant), weather)
