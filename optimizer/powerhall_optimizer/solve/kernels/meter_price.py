"""The price of a limit at the meter, given the prices of the pools' IT power.

In a slot, the jobs that pay `mu` for the IT power `x` of each pool pay at most

    min over lam >= 0 of  lam * limit + sum over halls of max over x of ( mu * x - lam * power(x) )

which is `mu * x` at the best x that the meter carries (convex duality). At the best `lam`, every pool that runs in part
draws `mu / lam` W at the meter per W more. The slopes are read from the halls' tables, smoothed between their points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerhall_optimizer.jit import inner_kernel, kernel
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.problem.meter import PART_BITS, SHARE_BITS, MeterCurves
from powerhall_optimizer.solve.kernels.kernel_arrays import Floats

__all__ = ["MeterGrid", "load_pools", "meter_grid", "price_meters"]


class MeterGrid(NamedTuple):
    """Slope and rise of the curves of halls with one pool, at equal steps of its IT power."""

    slope: Floats  # [C, W, G] W at the meter per W, rising
    power_w: Floats  # [C, W, G] W above the idle hall
    size_w: Floats  # [C] W of a step


_POINTS = 192
_PARTS = float(1 << PART_BITS)
_SHARES = float(1 << SHARE_BITS)
_SWEEPS = 4
_FIRST_STEP = 1.02
"""Factor from the guess of a price to the other end of its interval; it grows where that is not enough."""
_NEAR_ENOUGH = 1e-4
"""Relative width of the interval of a price, times the part of the limit that the loads at its ends are apart."""
_LEAST = 1e-9
"""Pools without a price count with this part of the highest price, so that the meter is used up where nothing binds."""


@inner_kernel
def _slope(table: Ints, shift: int, load_w: float) -> float:
    """Return the slope of a table at a load, interpolated between the middles of its cells."""
    size = float(1 << shift)
    at = load_w / size - 0.5
    cell = min(max(0, int(at)), len(table) - 3)
    part = min(max(at - cell, 0.0), 1.0)
    here = float(table[cell + 1] - table[cell])
    after = float(table[cell + 2] - table[cell + 1])
    return (here + part * (after - here)) / _PARTS / size


@inner_kernel
def _value(table: Ints, shift: int, load_w: float) -> float:
    size = float(1 << shift)
    cell = min(int(load_w / size), len(table) - 2)
    part = load_w / size - cell
    return (float(table[cell]) + part * float(table[cell + 1] - table[cell])) / _PARTS


@inner_kernel
def _power_w(curves: MeterCurves, hall: int, slot: int, it_w: Floats) -> float:
    """Return a hall's power at the meter for the IT power of each pool [K]."""
    it, liquid, air = float(curves.idle[hall, 0]), float(curves.idle[hall, 1]), float(curves.idle[hall, 2])
    for pool in range(curves.first[hall], curves.first[hall + 1]):
        share = curves.pool_share[pool, 0] / _SHARES
        it += it_w[pool]
        liquid += share * it_w[pool]
        air += (1.0 - share) * it_w[pool]
    weather = curves.weather[hall, slot]
    lost = _value(curves.table[hall, 0, 0], curves.shift[hall, 0], it)
    total = it + lost
    if curves.media[hall] == 1:
        total += _value(curves.table[hall, 1, weather], curves.shift[hall, 1], it + lost)
    elif curves.media[hall] == 2:
        total += _value(curves.table[hall, 1, weather], curves.shift[hall, 1], liquid)
        total += _value(curves.table[hall, 2, weather], curves.shift[hall, 2], air + lost)
    return total


@inner_kernel
def _pool_slope(curves: MeterCurves, hall: int, pool: int, slot: int, it_w: Floats) -> float:
    """Return the W at the meter per W more on a pool, for the IT power of each pool [K]."""
    it, liquid, air = float(curves.idle[hall, 0]), float(curves.idle[hall, 1]), float(curves.idle[hall, 2])
    for own in range(curves.first[hall], curves.first[hall + 1]):
        part = curves.pool_share[own, 0] / _SHARES
        it += it_w[own]
        liquid += part * it_w[own]
        air += (1.0 - part) * it_w[own]
    share = curves.pool_share[pool, 0] / _SHARES
    weather = curves.weather[hall, slot]
    losses = curves.table[hall, 0, 0]
    loss = _slope(losses, curves.shift[hall, 0], it)
    lost = _value(losses, curves.shift[hall, 0], it)
    total = 1.0 + loss
    if curves.media[hall] == 1:
        total += (1.0 + loss) * _slope(curves.table[hall, 1, weather], curves.shift[hall, 1], it + lost)
    elif curves.media[hall] == 2:
        total += share * _slope(curves.table[hall, 1, weather], curves.shift[hall, 1], liquid)
        air_slope = _slope(curves.table[hall, 2, weather], curves.shift[hall, 2], air + lost)
        total += (1.0 - share + loss) * air_slope
    return total


@inner_kernel
def _fill(
    curves: MeterCurves, hall: int, slot: int, price: Floats, lam: float, it_w: Floats, steps: int, sweeps: int
) -> None:
    """Set the IT power of a hall's pools to the best at the prices [K] of a W of IT and `lam` of a W at the meter.

    Pool by pool, the others as they are: sweeps from a load nearby come close to the best of all pools together.
    """
    first, last = curves.first[hall], curves.first[hall + 1]
    for _sweep in range(sweeps):
        for pool in range(first, last):
            low, high = 0.0, float(curves.pool_most[pool] - 1)
            it_w[pool] = low
            if price[pool] <= lam * _pool_slope(curves, hall, pool, slot, it_w):
                continue
            it_w[pool] = high
            if price[pool] >= lam * _pool_slope(curves, hall, pool, slot, it_w):
                continue
            for _ in range(steps):
                it_w[pool] = 0.5 * (low + high)
                if price[pool] > lam * _pool_slope(curves, hall, pool, slot, it_w):
                    low = it_w[pool]
                else:
                    high = it_w[pool]


@inner_kernel
def _read_off(grid: MeterGrid, hall: int, weather: int, pool: int, slope: float, it_w: Floats) -> float:
    """Set the IT power of a hall's one pool to where its curve has this slope; return what that adds at the meter."""
    slopes, powers, size = grid.slope[hall, weather], grid.power_w[hall, weather], grid.size_w[hall]
    low, high = 0, len(slopes) - 1
    if slope <= slopes[0]:
        it_w[pool] = 0.0
        return 0.0
    if slope >= slopes[high]:
        it_w[pool] = size * high
        return float(powers[high])
    while high - low > 1:
        middle = (low + high) // 2
        if slopes[middle] < slope:
            low = middle
        else:
            high = middle
    part = (slope - slopes[low]) / max(slopes[high] - slopes[low], 1e-12)
    it_w[pool] = size * (low + part)
    return float(powers[low] + part * (powers[high] - powers[low]))


@inner_kernel
def _next_price(low: float, over: float, high: float, under: float, turn: int) -> float:
    """Return where between two prices the limit may be met: by the line through both ends, or half-way now and then.

    At `low` the halls draw `over` W more than the limit, at `high` `under` W less.
    """
    middle = (low * high) ** 0.5
    if turn % 3 == 2 or high > 4.0 * low:
        return float(middle)
    part = over / max(over + under, 1e-9)
    return low + min(0.95, max(0.05, part)) * (high - low)


@inner_kernel
def _price_slot(
    curves: MeterCurves,
    grid: MeterGrid,
    halls: tuple[int, int],
    slot: int,
    price: Floats,
    guess: float,
    free_w: float,
    it_w: Floats,
    ends: Floats,
    steps: int,
) -> float:
    """Return the price of a W at the meter, sought from a guess, and set the IT power of each pool at it.

    `ends` [2, K] is scratch space for the IT power at both ends of the interval.
    """
    first, last = curves.first[halls[0]], curves.first[halls[1]]
    highest = 0.0
    for pool in range(first, last):
        highest = max(highest, price[pool])
    steepest = 1.0
    for hall in range(halls[0], halls[1]):
        steepest = max(steepest, curves.steepest[hall])
    lowest = highest if highest > 0 else 1.0
    for pool in range(first, last):
        price[pool] = max(price[pool], _LEAST * highest if highest > 0 else 1.0)
        lowest = min(lowest, price[pool])
    least, most = 0.5 * lowest / steepest, 2.0 * (highest if highest > 0 else 1.0)
    low, high, over, under = least, most, -1.0, -1.0
    lam = guess if least < guess < most else highest / steepest
    wide = _FIRST_STEP
    for turn in range(steps):
        lam = min(most, max(least, lam))
        more_w = _drawn_w(curves, grid, halls, slot, price, lam, it_w, steps) - free_w
        if more_w > 0:
            low, over = lam, more_w
            ends[0, first:last] = it_w[first:last]
            lam *= wide
        else:
            high, under = lam, -more_w
            ends[1, first:last] = it_w[first:last]
            if lam <= least:
                return 0.0  # the meter carries all that there is
            lam /= wide
        wide *= wide * wide
        if over >= 0 and under >= 0:
            if (high / low - 1.0) * (over + under) <= _NEAR_ENOUGH * free_w:
                break
            lam = _next_price(low, over, high, under, turn)
    if over < 0 or under < 0:  # not found in time: on the safe side
        high = most
        _drawn_w(curves, grid, halls, slot, price, high, it_w, steps)
        return high if highest > 0 else 0.0
    part = min(max(under / max(over + under, 1e-9), 0.0), 1.0)
    for pool in range(first, last):  # between the two, where the loads jump
        it_w[pool] = ends[1, pool] + part * (ends[0, pool] - ends[1, pool])
    return high if highest > 0 else 0.0


@inner_kernel
def _drawn_w(
    curves: MeterCurves,
    grid: MeterGrid,
    halls: tuple[int, int],
    slot: int,
    price: Floats,
    lam: float,
    it_w: Floats,
    steps: int,
) -> float:
    """Return what all halls add at the meter at its price `lam`, and set the IT power of each pool."""
    drawn = 0.0
    for hall in range(halls[0], halls[1]):
        pool = curves.first[hall]
        if curves.first[hall + 1] - pool == 1:
            drawn += _read_off(grid, hall, curves.weather[hall, slot], pool, price[pool] / lam, it_w)
            continue
        _fill(curves, hall, slot, price, lam, it_w, max(8, 2 * steps // 3), 1)
        drawn += _power_w(curves, hall, slot, it_w) - curves.idle_w[hall, slot]
    return drawn


@kernel
def price_meters(
    curves: MeterCurves,
    grid: MeterGrid,
    span: tuple[int, int],
    price: Floats,
    capacity: Floats,
    it_w: Floats,
    steps: int,
) -> float:
    """Write the prices at the meters into `price` [R, T] and the best IT power into `it_w` [K, T]; return the cost.

    `span` has the first slot and the one behind the last; the cost is what jobs pay at most for IT power there. The
    prices at the meters in `price` are where each is sought from, in at most `steps` steps.
    """
    total = 0.0
    pools = len(it_w)  # from 0, and not from `it_w`: another worker may have written its first slot by now
    mu, best, ends = np.zeros(pools), np.zeros(pools), np.zeros((2, pools))
    first = 0
    while first < len(curves.meter_row):
        row = curves.meter_row[first]
        last = first
        while last < len(curves.meter_row) and curves.meter_row[last] == row:
            last += 1
        for slot in range(span[0], span[1]):
            for pool in range(curves.first[first], curves.first[last]):
                mu[pool] = price[curves.pool_row[pool], slot]
            free_w = capacity[row, slot]
            lam = _price_slot(curves, grid, (first, last), slot, mu, price[row, slot], free_w, best, ends, steps)
            price[row, slot] = lam
            total += lam * free_w
            for hall in range(first, last):
                total -= lam * (_power_w(curves, hall, slot, best) - curves.idle_w[hall, slot])
            for pool in range(curves.first[first], curves.first[last]):
                it_w[pool, slot] = best[pool]
                total += price[curves.pool_row[pool], slot] * best[pool]
        first = last
    return total


@kernel
def load_pools(curves: MeterCurves, price: Floats, it_w: Floats, steps: int) -> None:
    """Write the IT power [K, T] of each pool at which a W more costs as much at the meter as it earns."""
    mu, best = it_w[:, 0].copy(), it_w[:, 0].copy()
    for hall in range(len(curves.meter_row)):
        for slot in range(price.shape[1]):
            for pool in range(curves.first[hall], curves.first[hall + 1]):
                mu[pool] = price[curves.pool_row[pool], slot]
            _fill(curves, hall, slot, mu, price[curves.meter_row[hall], slot], best, steps, _SWEEPS)
            for pool in range(curves.first[hall], curves.first[hall + 1]):
                it_w[pool, slot] = best[pool]


@kernel
def meter_grid(curves: MeterCurves) -> MeterGrid:
    """Return the slopes and rises of all halls with one pool; those of other halls are 0."""
    halls, kinds = len(curves.meter_row), curves.table.shape[2]
    slope = np.zeros((halls, kinds, _POINTS))
    power_w = np.zeros((halls, kinds, _POINTS))
    size_w = np.zeros(halls)
    it_w = np.zeros(len(curves.pool_row))
    done = np.zeros((halls, kinds), np.bool_)
    for hall in range(halls):
        pool = curves.first[hall]
        if curves.first[hall + 1] - pool != 1:
            continue
        size_w[hall] = (curves.pool_most[pool] - 1.0) / (_POINTS - 1)
        for slot in range(curves.weather.shape[1]):
            weather = curves.weather[hall, slot]
            if done[hall, weather]:
                continue
            done[hall, weather] = True
            for point in range(_POINTS):
                it_w[pool] = point * size_w[hall]
                slope[hall, weather, point] = _pool_slope(curves, hall, pool, slot, it_w)
                power_w[hall, weather, point] = _power_w(curves, hall, slot, it_w) - curves.idle_w[hall, slot]
                if point > 0:
                    slope[hall, weather, point] = max(slope[hall, weather, point], slope[hall, weather, point - 1])
    return MeterGrid(slope, power_w, size_w)
