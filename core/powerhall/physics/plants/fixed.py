"""A plant whose capacity and coefficient of performance do not depend on the weather."""

from powerhall.physics.plants.plant import Plant, compressor_power_w, load_share, moving_power_w
from powerhall.physics.weather import Weather

__all__ = ["Fixed"]


class Fixed:
    """Rated capacity in any weather; power from the rated coefficient of performance."""

    name = "fixed"
    title = "plant"
    needs_weather = False
    convex = True

    def capacity_w(self, plant: Plant, _weather: Weather) -> float:
        """Return the rated capacity in W."""
        return plant.capacity_w

    def power_w(self, plant: Plant, heat_w: float, _weather: Weather) -> float:
        """Return pumps, fans and compressor in W."""
        load = load_share(heat_w, plant.capacity_w)
        return moving_power_w(plant, load) + compressor_power_w(plant.capacity_w, plant.cop, load)

    def water_l_per_h(self, _plant: Plant, _heat_w: float, _weather: Weather) -> float:
        """Return 0: it uses no water."""
        return 0.0
