"""The power of cooling plants over their heat in one weather, as numbers that a kernel evaluates.

The figures are read off the models of `powerhall.physics.plants` at a few loads, so that there is one model: every kind
draws pumps, fans by the cube of the load, and a compressor whose power is either `(p + p**2) / 2` of that at full load
or a table over 64 parts of the rated capacity. A kind of another form is refused.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from powerhall.physics.plants.kinds import PLANT_KINDS
from powerhall.physics.plants.plant import Plant, load_share, moving_power_w
from powerhall.physics.plants.staging import least_part_load
from powerhall.physics.weather import Weather
from powerhall_twin.engine.columns import CAPACITY, COMPRESSOR, FAN, HAS_TABLE, PUMP, RATED, UNITS

__all__ = ["CURVE_PARTS", "PlantCurves", "plant_curves"]

CURVE_PARTS = 64
"""Parts of the rated capacity in the table of a chiller, as its model has them."""
_SERVES = {"all": 0, "liquid": 1, "air": 2}


class PlantCurves(NamedTuple):
    """The plants in the weather of now."""

    numbers: npt.NDArray[np.float64]  # [P, 9], see `columns`
    table: npt.NDArray[np.float64]  # [P, parts + 1] compressor's W over heat / rated, where there is a table
    relief: npt.NDArray[np.float64]  # [3 H] heat in W that stores take off the plants of each medium of a hall


class _Curve(NamedTuple):
    capacity: float
    compressor: float
    table: tuple[float, ...]


@lru_cache(maxsize=65536)
def _curve(plant: Plant, weather: Weather) -> _Curve:
    """Read a plant's curve off its model, all units running."""
    kind = PLANT_KINDS[plant.kind]
    capacity = kind.capacity_w(plant, weather)

    def compressor_w(heat_w: float) -> float:
        return kind.power_w(plant, heat_w, weather) - moving_power_w(plant, load_share(heat_w, capacity))

    full = compressor_w(capacity) if capacity > 0 else 0.0
    half = compressor_w(capacity / 2)
    if plant.curves is None:
        if abs(half - 0.375 * full) > 1e-6 * max(1.0, full):
            raise ValueError(f"plant {plant.name}: kind {plant.kind!r} has a curve that the engine does not know")
        return _Curve(capacity, full, ())
    return _Curve(
        capacity, 0.0, tuple(compressor_w(part / CURVE_PARTS * plant.capacity_w) for part in range(CURVE_PARTS + 1))
    )


def plant_curves(
    plants: Sequence[Plant],
    weather: Weather,
    relief: npt.NDArray[np.float64],
    units_out: Mapping[int, int],
) -> PlantCurves:
    """Return the curves of plants in a weather; of some, by their number, units are out of use."""
    curves = [_curve(plant, weather) for plant in plants]
    table = np.zeros((len(plants), CURVE_PARTS + 1))
    for number, curve in enumerate(curves):
        table[number, : len(curve.table)] = curve.table
    numbers = [
        (
            _SERVES[plant.serves],
            curve.capacity,
            plant.capacity_w,
            plant.pump_power_w,
            plant.fan_power_w,
            curve.compressor,
            bool(curve.table),
            plant.units,
            least_part_load(plant),
        )
        for plant, curve in zip(plants, curves, strict=True)
    ]
    made = np.array(numbers, np.float64).reshape(len(plants), 9)
    for number, out in units_out.items():
        units = plants[number].units
        left = min(max(0, units - out), units)
        share = left / units
        made[number, [CAPACITY, RATED, PUMP, FAN, COMPRESSOR]] *= share
        table[number] *= share
        made[number, UNITS] = max(1, left)
        if share == 0.0:
            made[number, HAS_TABLE] = 0.0
    return PlantCurves(made, table, relief)
