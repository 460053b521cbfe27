"""A dry cooler whose air is pre-cooled by a wet pad or spray, along the wet bulb.

Air leaves the pad at `dry bulb - effectiveness * (dry bulb - wet bulb)` (saturation effectiveness, ASHRAE Handbook HVAC
Systems and Equipment, "Evaporative Air-Cooling Equipment": 70 to 95 % for rigid media). The pad is wetted only in air
warmer than `rated_ambient_c`, and no more than it takes to bring the air down to it: there the cooler has its rated
capacity. Capacity is then that of a dry cooler in this air.
"""

from powerhall.physics.plants.plant import Plant, load_share, moving_power_w
from powerhall.physics.plants.water import pad_water_l_per_h
from powerhall.physics.weather import Weather

__all__ = ["Adiabatic"]


def _air_c(plant: Plant, weather: Weather) -> float:
    """Return the temperature of the air that reaches the coil."""
    dry_c, wet_c = weather.dry_bulb_c, min(weather.wet_bulb_c, weather.dry_bulb_c)
    if dry_c <= plant.rated_ambient_c:
        return dry_c
    return max(plant.rated_ambient_c, dry_c - plant.pad_effectiveness * (dry_c - wet_c))


class Adiabatic:
    """Fans and pumps only; no capacity where the pre-cooled air is as warm as the supply."""

    name = "adiabatic"
    title = "adiabatic cooler"
    needs_weather = True
    convex = True

    def capacity_w(self, plant: Plant, weather: Weather) -> float:
        """Return the capacity in W in air of this dry and wet bulb."""
        design_k = max(plant.supply_temp_c - plant.rated_ambient_c, 0.1)
        return plant.capacity_w * min(1.0, max(0.0, (plant.supply_temp_c - _air_c(plant, weather)) / design_k))

    def power_w(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return pumps and fans in W."""
        return moving_power_w(plant, load_share(heat_w, self.capacity_w(plant, weather)))

    def water_l_per_h(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return the water that the pad uses."""
        return pad_water_l_per_h(plant, heat_w, weather.dry_bulb_c - _air_c(plant, weather))
