"""What the one pool of a hall adds at the meter, in steps of its IT power: a reading costs one look-up.

The tables of `problem.meter` are read for losses, liquid and air one after the other. Here their sum is one table per
hall and weather, straight between points 2**shift W apart. The sum of convex curves is convex and lies below its
chords, so schedules that keep the limit by these steps, less `ROUNDINGS_W` per hall, keep it by the tables. Halls with
several pools, or with a curve that is not convex, are read as ever.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from powerhall_optimizer.jit import inner_kernel
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.problem.meter import MeterCurves, curve_power_w
from powerhall_optimizer.solve.kernels.meter import book_at_meter, last_blocked_at_meter

__all__ = ["ROUNDINGS_W", "MeterSteps", "book_by_steps", "last_blocked_by_steps", "meter_steps", "most_it_w"]

ROUNDINGS_W = 16
"""W of a hall by which roundings may lift its tables above the chords."""
_POINTS = 256
_FLAT = 4
"""How far a second difference of a convex table may lie below 0, in its own parts of a W: rounding."""


class MeterSteps(NamedTuple):
    """The steps of C halls, W kinds of weather and N points."""

    shift: Ints  # [C] points are 2**shift W of IT apart; -1: the hall is read by its own tables
    power_w: Ints  # [C, W, N] W above the idle hall


def meter_steps(curves: MeterCurves) -> MeterSteps:
    """Return the steps of all halls of a problem."""
    halls, kinds = len(curves.meter_row), curves.table.shape[2]
    shift = np.full(halls, -1, np.int64)
    power_w = np.zeros((halls, kinds, _POINTS + 2), np.int64)
    for hall in range(halls):
        pool = int(curves.first[hall])
        if curves.first[hall + 1] - pool != 1 or np.diff(curves.table[hall], n=2).min(initial=0) < -_FLAT:
            continue
        shift[hall] = max(0, (int(curves.pool_most[pool]) // _POINTS).bit_length())
        _, slots = np.unique(curves.weather[hall], return_index=True)
        here = curves._replace(weather=curves.weather[:, slots], idle_w=curves.idle_w[:, slots])
        for point in range(_POINTS + 2):
            load_w = point << int(shift[hall])
            inside_w = min(load_w, int(curves.pool_most[pool]) - 1)
            rise = curve_power_w(here, hall, [np.full(len(slots), inside_w, np.int64)]) - here.idle_w[hall]
            beyond_w = math.ceil((load_w - inside_w) * float(curves.steepest[hall]))  # no schedule comes here
            power_w[hall, here.weather[hall], point] = rise + beyond_w
    return MeterSteps(shift, power_w)


def most_it_w(curves: MeterCurves, pool: int, capacity: Ints) -> Ints:
    """Return per slot the most IT power of a pool within a limit at the meter [T], every other pool idle."""
    hall = int(curves.pool_curve[pool])
    own = range(int(curves.first[hall]), int(curves.first[hall + 1]))
    low = np.zeros(len(capacity), np.int64)
    high = np.full(len(capacity), int(curves.pool_most[pool]) - 1, np.int64)
    while (low < high).any():
        middle = (low + high + 1) // 2
        holds = curve_power_w(curves, hall, [middle * (p == pool) for p in own]) - curves.idle_w[hall] <= capacity
        low, high = np.where(holds, middle, low), np.where(holds, high, middle - 1)
    return low


@inner_kernel
def _power_w(steps: Ints, shift: int, it_w: int) -> int:
    """Return what `it_w` W of IT add to an idle hall at the meter by its steps [N], rounded up."""
    at = min(it_w >> shift, _POINTS)
    low = steps[at]
    return int(low - ((-(steps[at + 1] - low) * (it_w - (at << shift))) >> shift))


@inner_kernel
def last_blocked_by_steps(
    curves: MeterCurves, steps: MeterSteps, pool: int, amount: int, free: Ints, span: tuple[int, int]
) -> int:
    """Return the last slot of a span in which `amount` W more on a pool break the limit; -1: none."""
    hall = curves.pool_curve[pool]
    shift, table, weather = steps.shift[hall], steps.power_w[hall], curves.weather[hall]
    if shift < 0:
        return last_blocked_at_meter(curves, pool, amount, free, span)
    left, row, capacity = free[curves.meter_row[hall]], free[curves.pool_row[pool]], curves.pool_most[pool]
    most = int(amount * curves.steepest[hall]) + ROUNDINGS_W
    for slot in range(span[1] - 1, span[0] - 1, -1):
        if left[slot] >= most:
            continue
        now_w = capacity - row[slot]
        here = table[weather[slot]]
        if left[slot] < amount or _power_w(here, shift, now_w + amount) - _power_w(here, shift, now_w) > left[slot]:
            return int(slot)
    return -1


@inner_kernel
def book_by_steps(
    curves: MeterCurves, steps: MeterSteps, pool: int, amount: int, free: Ints, span: tuple[int, int]
) -> None:
    """Take from `free` at the meter what `amount` W more on a pool draw, before its own row."""
    hall = curves.pool_curve[pool]
    shift, table, weather = steps.shift[hall], steps.power_w[hall], curves.weather[hall]
    if shift < 0:
        book_at_meter(curves, pool, amount, free, span)
        return
    left, row, capacity = free[curves.meter_row[hall]], free[curves.pool_row[pool]], curves.pool_most[pool]
    for slot in range(span[0], span[1]):
        now_w = capacity - row[slot]
        here = table[weather[slot]]
        left[slot] -= _power_w(here, shift, now_w + amount) - _power_w(here, shift, now_w)
