"""Kernels: the power of a hall at the meter from the power of its pools, and whether its plants take the heat.

The formulas are those of `powerhall.physics.cooling.hall_load`, the plants' curves are read off its models.
"""

import math

from powerhall_twin.engine.columns import (
    CAPACITY,
    COMPRESSOR,
    FAN,
    HALL_PLANTS,
    HAS_TABLE,
    LEAST,
    PUMP,
    RATED,
    SERVES,
    UNITS,
)
from powerhall_twin.engine.jit import inner_kernel, kernel
from powerhall_twin.engine.plant_curves import CURVE_PARTS, PlantCurves
from powerhall_twin.engine.site_arrays import Floats, Ints, Layout

__all__ = ["hall_facility", "hall_heat", "hall_parts", "medium_capacity"]

_NW = 1e9


@inner_kernel
def _curve_w(plants: PlantCurves, p: int, heat_w: float) -> float:
    """Return what the whole plant draws at a heat in W."""
    capacity = plants.numbers[p, CAPACITY]
    load = heat_w / capacity if capacity > 0.0 else (0.0 if heat_w <= 0.0 else 1.0)
    power_w: float = plants.numbers[p, PUMP] + plants.numbers[p, FAN] * load**3
    if plants.numbers[p, HAS_TABLE] > 0.0:
        place = max(0.0, heat_w / plants.numbers[p, RATED]) * CURVE_PARTS
        part = min(int(place), CURVE_PARTS - 1)
        power_w += plants.table[p, part] + (place - part) * (plants.table[p, part + 1] - plants.table[p, part])
        return power_w
    power_w += plants.numbers[p, COMPRESSOR] * (load + load * load) / 2.0
    return power_w


@inner_kernel
def _units_w(plants: PlantCurves, p: int, running: int, heat_w: float) -> float:
    """Return what so many running units draw; below the least part load they run part of the time."""
    units, least_w = plants.numbers[p, UNITS], plants.numbers[p, LEAST] * plants.numbers[p, CAPACITY]
    load_w = max(0.0, heat_w) * units / running
    if load_w >= least_w:
        value: float = _curve_w(plants, p, load_w)
    else:
        value = plants.numbers[p, PUMP] + (_curve_w(plants, p, least_w) - plants.numbers[p, PUMP]) * load_w / least_w
    value *= running / units
    return value


@inner_kernel
def _plant_w(plants: PlantCurves, p: int, heat_w: float) -> float:
    """Return the plant's power with the number of units that draws the least."""
    units, capacity = int(plants.numbers[p, UNITS]), plants.numbers[p, CAPACITY]
    if units == 1 and plants.numbers[p, LEAST] <= 0.0:
        return _curve_w(plants, p, heat_w)
    first = units
    if capacity > 0.0:
        first = min(max(math.ceil(heat_w / capacity * units - 1e-9), 1), units)
    best_w = _units_w(plants, p, first, heat_w)
    for running in range(first + 1, units + 1):
        drawn_w = _units_w(plants, p, running, heat_w)
        if drawn_w < best_w * (1.0 - 1e-9):
            best_w = drawn_w
    return best_w


@inner_kernel
def medium_capacity(layout: Layout, plants: PlantCurves, hall: int, medium: int) -> tuple[float, int]:
    """Return the capacity in W of the plants that serve a medium, and their number."""
    total, count = 0.0, 0
    for p in range(layout.halls[HALL_PLANTS, hall], layout.halls[HALL_PLANTS, hall + 1]):
        if plants.numbers[p, SERVES] == medium:
            total += plants.numbers[p, CAPACITY]
            count += 1
    return total, count


@inner_kernel
def _medium_w(layout: Layout, plants: PlantCurves, hall: int, medium: int, heat_w: float) -> float:
    total, count = medium_capacity(layout, plants, hall, medium)
    power_w = 0.0
    for p in range(layout.halls[HALL_PLANTS, hall], layout.halls[HALL_PLANTS, hall + 1]):
        if plants.numbers[p, SERVES] == medium:
            share = plants.numbers[p, CAPACITY] / total if total > 0.0 else 1.0 / count
            power_w += _plant_w(plants, p, heat_w * share)
    return power_w


@inner_kernel
def hall_heat(layout: Layout, pool_nw: Ints, hall: int, extra_type: int, extra_nw: int) -> tuple[float, float, float]:
    """Return IT power, heat to liquid and heat to air without losses, in W; `extra_nw` comes on top in one type."""
    types = len(layout.type_gpus)
    it_w, liquid_w = 0.0, 0.0
    for t in range(types):
        nw = pool_nw[hall * types + t] + (extra_nw if t == extra_type else 0)
        it_w += nw / _NW
        liquid_w += layout.type_liquid[t] * (nw / _NW)
    return it_w, liquid_w, it_w - liquid_w


@inner_kernel
def hall_facility(
    layout: Layout, plants: PlantCurves, pool_nw: Ints, hall: int, extra_type: int, extra_nw: int
) -> tuple[float, bool]:
    """Return a hall's power at the meter in W, and whether its plants take all its heat."""
    it_w, liquid_w, air_w = hall_heat(layout, pool_nw, hall, extra_type, extra_nw)
    loss_w = layout.losses[hall, 0] + (layout.losses[hall, 1] + layout.losses[hall, 2] * it_w) * it_w
    total_w, cooled = it_w + loss_w, True
    first, last = layout.halls[HALL_PLANTS, hall], layout.halls[HALL_PLANTS, hall + 1]
    if first == last:
        return total_w, cooled
    has_all = False
    for p in range(first, last):
        has_all = has_all or plants.numbers[p, SERVES] == 0
    for medium in range(3):
        if has_all == (medium == 0):
            heat_w = it_w + loss_w if medium == 0 else (liquid_w if medium == 1 else air_w + loss_w)
            heat_w -= plants.relief[3 * hall + medium]
            capacity_w, _ = medium_capacity(layout, plants, hall, medium)
            cooled = cooled and heat_w <= capacity_w + 1e-6
            total_w += _medium_w(layout, plants, hall, medium, heat_w)
    return total_w, cooled


@kernel
def hall_parts(layout: Layout, plants: PlantCurves, pool_nw: Ints, parts: Floats) -> None:
    """Write for each hall [H, 9] in W: IT, losses, cooling, then heat to the plants of each medium, and capacities."""
    for hall in range(layout.halls.shape[1] - 1):
        it_w, liquid_w, air_w = hall_heat(layout, pool_nw, hall, -1, 0)
        loss_w = layout.losses[hall, 0] + (layout.losses[hall, 1] + layout.losses[hall, 2] * it_w) * it_w
        total_w, _ = hall_facility(layout, plants, pool_nw, hall, -1, 0)
        parts[hall, 0], parts[hall, 1], parts[hall, 2] = it_w, loss_w, total_w - it_w - loss_w
        for medium in range(3):
            heat_w = it_w + loss_w if medium == 0 else (liquid_w if medium == 1 else air_w + loss_w)
            parts[hall, 3 + medium] = heat_w - plants.relief[3 * hall + medium]
            parts[hall, 6 + medium], _ = medium_capacity(layout, plants, hall, medium)
