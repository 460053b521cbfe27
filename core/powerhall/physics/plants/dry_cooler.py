"""A dry cooler: capacity is proportional to the distance of the supply temperature from the dry bulb."""

from powerhall.physics.plants.plant import Plant, load_share, moving_power_w
from powerhall.physics.weather import Weather

__all__ = ["DryCooler"]


class DryCooler:
    """Fans and pumps only; no capacity where the air is as warm as the supply."""

    name = "dry_cooler"
    title = "dry cooler"
    needs_weather = True
    convex = True

    def capacity_w(self, plant: Plant, weather: Weather) -> float:
        """Return the capacity in W at this dry bulb."""
        design_k = max(plant.supply_temp_c - plant.rated_ambient_c, 0.1)
        return plant.capacity_w * min(1.0, max(0.0, (plant.supply_temp_c - weather.dry_bulb_c) / design_k))

    def power_w(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return pumps and fans in W."""
        return moving_power_w(plant, load_share(heat_w, self.capacity_w(plant, weather)))

    def water_l_per_h(self, _plant: Plant, _heat_w: float, _weather: Weather) -> float:
        """Return 0: it uses no water."""
        return 0.0
