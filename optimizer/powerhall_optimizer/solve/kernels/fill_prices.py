"""Prices that follow the fill: up where a resource is fuller than a level, down where it is emptier.

At the Lagrangian prices every job that is indifferent between two slots or halls takes the same one. Prices that follow
the placed jobs break these ties, and resources that bind together fill up together.
"""

from __future__ import annotations

from powerhall_optimizer.jit import inner_kernel
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.kernels.kernel_arrays import FillRule, Floats, GuidePrices, PriceBasis, ProblemArrays

__all__ = ["follow_fill", "mean_fill"]

_CHEAPEST, _DEAREST = 0.05, 4.0
"""Limits of the factor on a price: an empty resource still costs something, a full one no more than four times."""
_STALE = -1.0
"""Marks a row of resource prices that is still to be computed; prices are never negative."""


@inner_kernel
def _price_resource(
    problem: ProblemArrays, resource: int, basis: PriceBasis, free: Ints, rule: FillRule, row: Floats
) -> None:
    """Write the price of one resource in every slot into `row` [T]; a pool that a meter counts is as full as that."""
    filled = resource
    pool = problem.curves.row_pool[resource]
    if pool >= 0:
        filled = problem.curves.meter_row[problem.curves.pool_curve[pool]]
    for slot in range(len(row)):
        fill = 1.0 - free[filled, slot] / basis.capacity[filled, slot]
        factor = min(_DEAREST, max(_CHEAPEST, 1.0 + rule.slope * (fill - rule.level)))
        row[slot] = rule.scale * basis.price[resource, slot] * factor


@inner_kernel
def follow_fill(
    problem: ProblemArrays, profiles: Ints, basis: PriceBasis, free: Ints, rule: FillRule, guide: GuidePrices
) -> None:
    """Write the prices of the given profiles at the amounts `free` [R, T] into `guide.prefix`; other rows stay.

    Profiles share resources: the price of a resource is computed once per call, by the first profile that uses it.
    """
    slots = free.shape[1]
    for profile in profiles:
        for use in range(problem.profile_uses[profile], problem.profile_uses[profile + 1]):
            guide.resource_price[problem.profile_resource[use], 0] = _STALE
    for profile in profiles:
        row = guide.prefix[profile]
        energy = basis.energy[profile]
        for slot in range(slots):
            row[slot + 1] = energy[slot + 1] - energy[slot]
        for use in range(problem.profile_uses[profile], problem.profile_uses[profile + 1]):
            resource = problem.profile_resource[use]
            price = guide.resource_price[resource]
            if price[0] < 0.0:
                _price_resource(problem, resource, basis, free, rule, price)
            amount = float(problem.profile_amount[use])
            for slot in range(slots):
                row[slot + 1] += amount * price[slot]
        for slot in range(slots):
            row[slot + 1] += row[slot]


@inner_kernel
def mean_fill(problem: ProblemArrays, basis: PriceBasis, free: Ints, weight: float) -> float:
    """Return the mean fill weighted by price times capacity, whose sum is `weight`; 0 where nothing has a price.

    Pools that a meter counts are left out: the meter itself stands for them.
    """
    left = 0.0
    for resource in range(free.shape[0]):
        if problem.curves.row_pool[resource] >= 0:
            continue
        for slot in range(free.shape[1]):
            left += basis.price[resource, slot] * free[resource, slot]
    return 1.0 - left / weight if weight > 0.0 else 0.0
