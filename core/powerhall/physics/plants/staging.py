"""Several equal units per plant: how many run at a heat, so that they draw the least power together.

Units that run share the heat. Each has the plant's curve at its own scale: n of N units at heat Q draw n / N of what
the whole plant would draw at Q * N / n (capacity, fans, pumps and compressors all scale). A unit never runs below its
minimum part load: it then runs part of the time at this load, its pump all the time (EnergyPlus, cycling ratio of
`Chiller:Electric:EIR`). At least one unit runs. Of equal choices the one of fewest units is taken.

Power never falls as the heat rises: for each number of units it does not, and more heat only rules out small numbers.
It is not convex in the heat where the number changes.
"""

from collections.abc import Callable
from math import ceil

from powerhall.physics.plants.plant import Plant, PlantKind
from powerhall.physics.weather import Weather

__all__ = ["Staged", "least_part_load", "units_power_w", "units_running"]


def least_part_load(plant: Plant) -> float:
    """Return the part load below which a unit runs part of the time: the site's or the curves', the higher."""
    return max(plant.min_part_load, 0.0 if plant.curves is None else plant.curves.part_load[0])


class Staged:
    """A kind of plant with several units, or with a minimum part load."""

    convex = False

    def __init__(self, kind: PlantKind) -> None:
        self.kind = kind
        self.name = kind.name
        self.title = kind.title
        self.needs_weather = kind.needs_weather

    def capacity_w(self, plant: Plant, weather: Weather) -> float:
        """Return the capacity in W of all units together."""
        return self.kind.capacity_w(plant, weather)

    def power_w(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return the power in W of the number of units that draws the least."""
        return self.choice(plant, heat_w, weather)[1]

    def water_l_per_h(self, plant: Plant, heat_w: float, weather: Weather) -> float:
        """Return the water that the running units use."""
        units = self.choice(plant, heat_w, weather)[0]

        def water(load_w: float) -> float:
            return self.kind.water_l_per_h(plant, load_w, weather)

        return _of_units(plant, units, heat_w, water, _least_w(plant, self.kind.capacity_w(plant, weather)))

    def choice(self, plant: Plant, heat_w: float, weather: Weather) -> tuple[int, float]:
        """Return the number of running units and their power in W."""
        capacity_w = self.kind.capacity_w(plant, weather)
        least_load_w = _least_w(plant, capacity_w)

        def power_w(load_w: float) -> float:
            return self.kind.power_w(plant, load_w, weather)

        first = plant.units
        if capacity_w > 0:
            first = min(max(ceil(heat_w / capacity_w * plant.units - 1e-9), 1), plant.units)
        best, best_w = first, _of_units(plant, first, heat_w, power_w, least_load_w, plant.pump_power_w)
        for units in range(first + 1, plant.units + 1):
            drawn_w = _of_units(plant, units, heat_w, power_w, least_load_w, plant.pump_power_w)
            if drawn_w < best_w * (1.0 - 1e-9):
                best, best_w = units, drawn_w
        return best, best_w

    def power_of(self, plant: Plant, units: int, heat_w: float, weather: Weather) -> float:
        """Return the power in W of so many running units that share the heat."""

        def power_w(load_w: float) -> float:
            return self.kind.power_w(plant, load_w, weather)

        least_load_w = _least_w(plant, self.kind.capacity_w(plant, weather))
        return _of_units(plant, units, heat_w, power_w, least_load_w, plant.pump_power_w)


def _least_w(plant: Plant, capacity_w: float) -> float:
    """Return the heat of the whole plant at the least part load of its units."""
    return least_part_load(plant) * capacity_w


def _of_units(  # noqa: PLR0917 - one formula
    plant: Plant, units: int, heat_w: float, curve: Callable[[float], float], least_w: float, always: float = 0.0
) -> float:
    """Return the curve's value of so many units; `always` is the whole plant's part that does not cycle."""
    load_w = max(0.0, heat_w) * plant.units / units
    value = curve(load_w) if load_w >= least_w else always + (curve(least_w) - always) * load_w / least_w
    return value * units / plant.units


def units_running(kind: PlantKind, plant: Plant, heat_w: float, weather: Weather) -> int:
    """Return the number of units to run."""
    return kind.choice(plant, heat_w, weather)[0] if isinstance(kind, Staged) else 1


def units_power_w(kind: PlantKind, plant: Plant, units: int, heat_w: float, weather: Weather) -> float:
    """Return the power in W of so many running units."""
    if isinstance(kind, Staged):
        return kind.power_of(plant, units, heat_w, weather)
    return kind.power_w(plant, heat_w, weather)
