"""The limit at the meter in compiled code: what a hall draws there by the tables of `problem.meter`, slot by slot.

All numbers are whole, and the formulas are those of `problem.meter.curve_power_w`, so that both find the same W.
"""

from __future__ import annotations

from powerhall_optimizer.jit import inner_kernel
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.problem.meter import BEYOND_W, PART_BITS, SHARE_BITS, MeterCurves
from powerhall_optimizer.solve.kernels.kernel_arrays import Flags

__all__ = ["book_at_meter", "last_blocked_at_meter", "mark_blocked_at_meter"]

_ROUNDINGS = 16
"""W by which roundings of tables may let an option add more than by the steepest slope."""


@inner_kernel
def _read(table: Ints, shift: int, load_w: int) -> int:
    """Return the table's value at a load, rounded up."""
    at = load_w >> shift
    if at >= len(table) - 1:
        return BEYOND_W
    low = table[at]
    value = low - ((-(table[at + 1] - low) * (load_w - (at << shift))) >> shift)
    return int(-(-value >> PART_BITS))


@inner_kernel
def _alike(curves: MeterCurves, hall: int, free: Ints, slot: int, other: int) -> bool:
    """Whether weather and jobs of a hall are the same in two slots: then its curve says the same in both."""
    if curves.weather[hall, slot] != curves.weather[hall, other]:
        return False
    for pool in range(curves.first[hall], curves.first[hall + 1]):
        row = curves.pool_row[pool]
        if free[row, slot] != free[row, other]:
            return False
    return True


@inner_kernel
def _drawn_w(curves: MeterCurves, hall: int, weather: int, it: int, liquid: int, air: int) -> int:
    """Return a hall's power at the meter at its IT power and the parts of it that go to liquid and to air."""
    lost = _read(curves.table[hall, 0, 0], curves.shift[hall, 0], it)
    total = it + lost
    if curves.media[hall] == 1:
        total += _read(curves.table[hall, 1, weather], curves.shift[hall, 1], it + lost)
    elif curves.media[hall] == 2:
        total += _read(curves.table[hall, 1, weather], curves.shift[hall, 1], liquid)
        total += _read(curves.table[hall, 2, weather], curves.shift[hall, 2], air + lost)
    return int(min(total, BEYOND_W))


@inner_kernel
def _rise_w(curves: MeterCurves, pool: int, amount: int, free: Ints, slot: int) -> int:
    """Return what `amount` W more on a pool add at the meter in a slot."""
    hall = curves.pool_curve[pool]
    it, liquid, air = curves.idle[hall, 0], curves.idle[hall, 1], curves.idle[hall, 2]
    more_liquid, more_air = 0, 0
    for own in range(curves.first[hall], curves.first[hall + 1]):
        watts = curves.pool_most[own] - free[curves.pool_row[own], slot]
        up = (-curves.pool_share[own, 0] * watts) >> SHARE_BITS
        down = (curves.pool_share[own, 1] * watts) >> SHARE_BITS
        it += watts
        liquid -= up
        air += watts - down
        if own == pool:
            more_liquid = up - ((-curves.pool_share[own, 0] * (watts + amount)) >> SHARE_BITS)
            more_air = amount + down - ((curves.pool_share[own, 1] * (watts + amount)) >> SHARE_BITS)
    weather = curves.weather[hall, slot]
    now = _drawn_w(curves, hall, weather, it, liquid, air)
    return _drawn_w(curves, hall, weather, it + amount, liquid + more_liquid, air + more_air) - now


@inner_kernel
def mark_blocked_at_meter(
    curves: MeterCurves, pool: int, amount: int, free: Ints, span: tuple[int, int], blocked: Flags
) -> None:
    """Flag the slots of a span (first, behind the last) in which `amount` W more on a pool break the limit.

    A W of IT draws at least a W at the meter and at most the steepest slope: only in between the curve is read, and
    once for slots that are alike.
    """
    hall = curves.pool_curve[pool]
    left = free[curves.meter_row[hall]]
    most = amount * curves.steepest[hall] + _ROUNDINGS
    read, rise = -1, 0
    for slot in range(span[0], span[1]):
        if left[slot] < amount:
            blocked[slot] = True
        elif left[slot] < most and not blocked[slot]:
            if read < 0 or not _alike(curves, hall, free, slot, read):
                rise = _rise_w(curves, pool, amount, free, slot)
            read = slot
            blocked[slot] = rise > left[slot]


@inner_kernel
def last_blocked_at_meter(curves: MeterCurves, pool: int, amount: int, free: Ints, span: tuple[int, int]) -> int:
    """Return the last slot of a span in which `amount` W more on a pool break the limit; -1: none."""
    hall = curves.pool_curve[pool]
    left = free[curves.meter_row[hall]]
    most = amount * curves.steepest[hall] + _ROUNDINGS
    read, rise = -1, 0
    for slot in range(span[1] - 1, span[0] - 1, -1):
        if left[slot] >= most:
            continue
        if left[slot] < amount:
            return int(slot)
        if read < 0 or not _alike(curves, hall, free, slot, read):
            rise = _rise_w(curves, pool, amount, free, slot)
        read = slot
        if rise > left[slot]:
            return int(slot)
    return -1


@inner_kernel
def book_at_meter(curves: MeterCurves, pool: int, amount: int, free: Ints, span: tuple[int, int]) -> None:
    """Take from `free` at the meter what `amount` W more on a pool draw (negative: give back), before its own row."""
    hall = curves.pool_curve[pool]
    left = free[curves.meter_row[hall]]
    read, rise = -1, 0
    for slot in range(span[0], span[1]):
        if read < 0 or not _alike(curves, hall, free, slot, read):
            rise = _rise_w(curves, pool, amount, free, slot)
        read = slot
        left[slot] -= rise
