"""The true curves of halls at the meter, as whole numbers from above: what a plan's IT power draws there.

Each hall's power at the meter is its IT power, the losses of its power chain and the power of its plants, each a table
over its own load (IT power, or heat of a medium) that is read by straight interpolation and rounded up. A convex curve
lies below its chords; of any other curve that rises with the load the table holds the value of the next point. So a
schedule within the limit by these tables is within it by the true curves. Everything is an integer, so that compiled
code and numpy find the same number.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "BEYOND_W",
    "PART_BITS",
    "SHARE_BITS",
    "MeterCurves",
    "coarse_curves",
    "curve_power_w",
    "hall_loads_w",
    "join_curves",
    "no_curves",
    "rises_w",
    "slot_power_w",
]

Ints = npt.NDArray[np.int64]
SHARE_BITS = 20
"""Liquid fractions are whole numbers over 2**20."""
PART_BITS = 8
"""Tables are in W over 2**8."""
BEYOND_W = 1 << 44
"""Power of a load beyond a table's end: never within a limit."""


class MeterCurves(NamedTuple):
    """C halls (curves), K pools (a node type in a hall), W kinds of weather, N points, over R resources and T slots."""

    meter_row: Ints  # [C] resource of the limit at the meter that the hall counts against
    first: Ints  # [C + 1] hall c owns the pools first[c] .. first[c + 1] - 1
    pool_row: Ints  # [K] resource that counts the pool's IT power
    pool_most: Ints  # [K] its capacity, the same in every slot; no schedule reaches it
    pool_share: Ints  # [K, 2] liquid fraction over 2**SHARE_BITS, rounded up and down
    pool_curve: Ints  # [K]
    row_pool: Ints  # [R] the pool that a resource counts, -1 for other resources
    idle: Ints  # [C, 3] IT power and heat to liquid and to air of the idle hall
    media: Ints  # [C] 0: no plants, 1: one medium, 2: liquid and air
    weather: Ints  # [C, T] which table holds in a slot
    shift: (
        Ints  # [C, 3] tables of losses, plants of the whole hall or of liquid, plants of air: points 2**shift W apart
    )
    table: Ints  # [C, 3, W, N] W over 2**PART_BITS at each point
    idle_w: Ints  # [C, T] power at the meter of the idle hall
    steepest: npt.NDArray[np.float64]  # [C] no W of IT adds more W at the meter than this, by the tables


def no_curves(resources: int, slots: int) -> MeterCurves:
    """Return the curves of a problem in which nothing but sums is limited."""
    none = np.zeros(0, np.int64)
    return MeterCurves(
        none,
        np.zeros(1, np.int64),
        none,
        none,
        np.zeros((0, 2), np.int64),
        none,
        np.full(resources, -1, np.int64),
        np.zeros((0, 3), np.int64),
        none,
        np.zeros((0, slots), np.int64),
        np.zeros((0, 3), np.int64),
        np.zeros((0, 3, 1, 2), np.int64),
        np.zeros((0, slots), np.int64),
        np.zeros(0),
    )


def join_curves(parts: Sequence[MeterCurves], first_resource: Sequence[int]) -> MeterCurves:
    """Return the curves of several sites whose resources stand one behind the other."""
    shape = [max(part.table.shape[axis] for part in parts) for axis in (2, 3)]
    assert all(part.table.shape[3] == shape[1] for part in parts if len(part.table)), "tables of all sites are as long"
    pools = np.cumsum([0, *(len(part.pool_row) for part in parts)])
    curves = np.cumsum([0, *(len(part.meter_row) for part in parts)])
    tables = []
    for part in parts:
        wide = np.zeros((len(part.table), 3, *shape), np.int64)
        if len(part.table):
            wide[:, :, : part.table.shape[2]] = part.table
        tables.append(wide)
    both = list(zip(parts, first_resource, strict=True))
    starts = [part.first[:-1] + begin for part, begin in zip(parts, pools, strict=False)]
    return MeterCurves(
        np.concatenate([part.meter_row + row for part, row in both]),
        np.concatenate([*starts, pools[-1:]]).astype(np.int64),
        np.concatenate([part.pool_row + row for part, row in both]),
        np.concatenate([part.pool_most for part in parts]),
        np.concatenate([part.pool_share for part in parts]),
        np.concatenate([part.pool_curve + begin for part, begin in zip(parts, curves, strict=False)]).astype(np.int64),
        np.concatenate(
            [np.where(p.row_pool >= 0, p.row_pool + begin, -1) for p, begin in zip(parts, pools, strict=False)]
        ).astype(np.int64),
        np.concatenate([part.idle for part in parts]),
        np.concatenate([part.media for part in parts]),
        np.concatenate([part.weather for part in parts]),
        np.concatenate([part.shift for part in parts]),
        np.concatenate(tables),
        np.concatenate([part.idle_w for part in parts]),
        np.concatenate([part.steepest for part in parts]),
    )


def _read(table: Ints, weather: Ints, shift: int, load_w: Ints) -> Ints:
    """Return the table's value at each slot's load, rounded up."""
    at = load_w >> shift
    inside = at < table.shape[1] - 1
    at = np.where(inside, at, 0)
    low = table[weather, at]
    part = load_w - (at << shift)
    found: Ints = low - ((-(table[weather, at + 1] - low) * np.where(inside, part, 0)) >> shift)
    return np.where(inside, -(-found >> PART_BITS), BEYOND_W)


def _loads_w(curves: MeterCurves, hall: int, added_w: Sequence[Ints]) -> tuple[Ints, Ints, Ints]:
    """Return a hall's IT power and its parts to liquid and to air per slot."""
    it, liquid, air = (np.full(curves.weather.shape[1], load, np.int64) for load in curves.idle[hall])
    for pool, watts in zip(range(curves.first[hall], curves.first[hall + 1]), added_w, strict=True):
        up, down = curves.pool_share[pool]
        it = it + watts
        liquid = liquid - ((-up * watts) >> SHARE_BITS)
        air = air + watts - ((down * watts) >> SHARE_BITS)
    return it, liquid, air


def hall_loads_w(curves: MeterCurves, hall: int, added_w: Sequence[Ints]) -> list[Ints]:
    """Return a hall's IT power, and the heat of each of its media, per slot for the IT power of its pools [T]."""
    it, liquid, air = _loads_w(curves, hall, added_w)
    lost = _read(curves.table[hall, 0], np.zeros_like(it), int(curves.shift[hall, 0]), it)
    return [[it], [it, it + lost], [it, liquid, air + lost]][int(curves.media[hall])]


def curve_power_w(curves: MeterCurves, hall: int, added_w: Sequence[Ints]) -> Ints:
    """Return a hall's power at the meter per slot for the IT power that jobs add on each of its pools [T]."""
    it, liquid, air = _loads_w(curves, hall, added_w)
    weather, shift, table = curves.weather[hall], curves.shift[hall], curves.table[hall]
    lost = _read(table[0], np.zeros_like(weather), int(shift[0]), it)
    total = it + lost
    if curves.media[hall] == 1:
        total = total + _read(table[1], weather, int(shift[1]), it + lost)
    elif curves.media[hall] == 2:
        total = total + _read(table[1], weather, int(shift[1]), liquid)
        total = total + _read(table[2], weather, int(shift[2]), air + lost)
    result: Ints = np.minimum(total, BEYOND_W)
    return result


def rises_w(curves: MeterCurves, hall: int, usage: Ints) -> Ints:
    """Return how much the jobs of a usage [R, T] raise a hall's power at the meter per slot."""
    pools = range(curves.first[hall], curves.first[hall + 1])
    power_w = curve_power_w(curves, hall, [usage[curves.pool_row[pool]] for pool in pools])
    rise: Ints = power_w - curves.idle_w[hall]
    return rise


def slot_power_w(curves: MeterCurves, hall: int, slot: int, added_w: Sequence[int]) -> int:
    """Return a hall's power at the meter in one slot for the IT power that jobs add on each of its pools."""
    rows = [np.array([watts], np.int64) for watts in added_w]
    return int(curve_power_w(slots_of(curves, (slot, slot + 1)), hall, rows)[0])


def slots_of(curves: MeterCurves, span: tuple[int, int]) -> MeterCurves:
    """Return the curves in the slots of a span (first, behind the last) alone."""
    weather, idle_w = curves.weather[:, span[0] : span[1]], curves.idle_w[:, span[0] : span[1]]
    return curves._replace(weather=weather, idle_w=idle_w)


def coarse_curves(curves: MeterCurves, starts: Ints) -> MeterCurves:
    """Return the curves on long slots that begin at these: in each the highest rise above idle of any of its slots.

    Each long slot has a table of its own, the greatest rise of the plants from their power at the idle hall's heat.
    """
    if not len(curves.meter_row):
        return curves._replace(weather=curves.weather[:, starts].copy(), idle_w=curves.idle_w[:, starts].copy())
    halls, slots, points = len(curves.meter_row), len(starts), curves.table.shape[3]
    table = np.zeros((halls, 3, slots, points), np.int64)
    table[:, 0] = curves.table[:, 0, :1]
    nothing = [np.zeros(curves.weather.shape[1], np.int64)]
    for hall in range(halls):
        loads = hall_loads_w(curves, hall, nothing * int(curves.first[hall + 1] - curves.first[hall]))[1:]
        for part, load in enumerate(loads, 1):
            idle = _read(curves.table[hall, part], curves.weather[hall], int(curves.shift[hall, part]), load)
            rise = curves.table[hall, part][curves.weather[hall]] - (idle[:, None] << PART_BITS)
            table[hall, part] = np.maximum.reduceat(rise, starts, axis=0)
    lifted = -np.minimum(0, table.min(axis=3, keepdims=True))  # tables have no negative power; it cancels out
    table += lifted
    idle_w = (lifted[:, 1, :, 0] >> PART_BITS) + (lifted[:, 2, :, 0] >> PART_BITS)
    for hall in range(halls):
        bare = curves._replace(media=np.zeros(halls, np.int64))
        idle_w[hall] += curve_power_w(bare, hall, nothing * int(curves.first[hall + 1] - curves.first[hall]))[starts]
    coarse = curves._replace(weather=np.tile(np.arange(slots), (halls, 1)), table=table, idle_w=idle_w)
    steps = np.diff(table, axis=3).max(axis=(2, 3)) / float(1 << PART_BITS) / 2.0**curves.shift
    steepest = (1.0 + steps[:, 0]) * (1.0 + np.maximum(steps[:, 1], steps[:, 2]))
    return coarse._replace(steepest=steepest)
