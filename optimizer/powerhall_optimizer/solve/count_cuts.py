"""Count cuts: resources counted in whole jobs, which tighten the bound where a few large jobs fill a capacity.

Where every amount that matters is a multiple of `D`, at most `floor(C / D)` multiples of it run at once: 45 jobs of
11,640 W in 529 kW, not 45.4. Dividing usage and capacity by `D` and rounding both down keeps every schedule (Chvatal
1973; Fekete and Schepers 2001), so such a row may be priced like any other. The checker divides by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from powerhall_optimizer.problem.arrays import Cut, Ints, PriceCertificate, Problem
from powerhall_optimizer.problem.resources import Resource, ResourceNames
from powerhall_optimizer.solve.kernels.kernel_arrays import Floats
from powerhall_optimizer.solve.kernels.meter_steps import most_it_w
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.prices import ROUNDING, Prices, evaluate
from powerhall_optimizer.solve.stage import CutPrices, SolveBudget, SolverState, certificate_of

__all__ = ["CountCuts", "cut_certificate", "find_cuts"]

_MOST_CUTS = 12
_LEAST_GAIN = 0.002
"""Part of the capacity of a priced row that a cut must take away, on average over the slots."""
_SHARES = (1.0, 0.5)
"""Parts of a resource's price that are tried on its cut."""
_SLACK_BITS = 10
"""A divisor is this much (2**-10) below the amounts that it counts: the checker rounds them down, the plan up."""


@dataclass(frozen=True, slots=True)
class CountCuts:
    """The stage: prices of the resources and of their cuts together, from the present prices on."""

    step: float = 0.04

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Lower the bound; the schedule and the prices that guide its search stay as they are."""
        problem = state.presolved.problem
        cuts = () if state.price is None else find_cuts(problem, state.price)
        if not cuts or state.price is None:
            return state
        presolved = presolve(_with_cuts(problem, cuts))
        start = _moved(replace(state, presolved=presolved), cuts, state.price, budget)
        found = Prices(warm_step=self.step).run(start, replace(budget, target_gap=0.0))
        if found.price is None or found.bound >= state.bound:
            return state
        return replace(state, bound=found.bound, cuts=CutPrices(presolved, cuts, found.price))


def _moved(state: SolverState, cuts: tuple[Cut, ...], price: Floats, budget: SolveBudget) -> SolverState:
    """Return a state whose prices [R, T] have moved from resources to their cuts wherever that lowers the bound.

    Where all usage is in whole multiples, the jobs pay the same, and what no multiple can use costs nothing any more.
    Halls that share prices move together: one of them stands for all in `evaluate`.
    """
    resources = len(price)
    group = state.presolved.resource_group[resources:]
    state = replace(state, price=np.vstack((price, np.zeros((len(cuts), price.shape[1])))))
    for first in np.unique(group, return_index=True)[1].tolist():
        alike = np.flatnonzero(group == group[first])
        own = [cuts[number].resource for number in alike]
        for share in _SHARES:
            assert state.price is not None
            trial = state.price.copy()
            part = share * trial[own]
            trial[own] -= part
            trial[resources + alike] += part * cuts[first].divisor
            at = evaluate(state.presolved, trial, budget)
            state = state.tighter(at.price, at.bound * (1 + ROUNDING) + 1)
    return state


def find_cuts(problem: Problem, price: Floats) -> tuple[Cut, ...]:
    """Return the cuts that take the most away from the capacity of priced rows [R, T], the best first."""
    found: list[tuple[float, int, int]] = []
    for resource, most in enumerate(_most(problem)):
        priced = price[resource] > 0
        if not priced.any():
            continue
        amounts = np.unique(problem.use_amount[problem.use_resource == resource])
        for divisor in np.unique(amounts - np.maximum(1, amounts >> _SLACK_BITS)).tolist():
            if divisor > 1:
                gain = _taken_away(most, amounts, divisor) * float(price[resource][priced].sum() * most.mean())
                if _taken_away(most, amounts, divisor) >= _LEAST_GAIN:
                    found.append((gain, resource, divisor))
    found.sort(key=lambda cut: (-cut[0], cut[1:]))
    return tuple(Cut(resource, divisor) for _, resource, divisor in found[:_MOST_CUTS])


def _taken_away(most: Ints, amounts: Ints, divisor: int) -> float:
    """Return the mean part of the capacity that no multiple of the least amount counted by a cut can use."""
    least = int(amounts[amounts >= divisor][0])
    room = np.maximum(most, 1)
    return float((1.0 - (room // divisor) * least / room).clip(0.0, 1.0).mean())


def _most(problem: Problem) -> list[Ints]:
    """Return the capacity of each resource; of a pool at a meter, what it can draw there with all others idle."""
    curves = problem.curves
    rows = list(problem.capacity)
    for pool, row in enumerate(curves.pool_row.tolist()):
        rows[row] = most_it_w(curves, pool, problem.capacity[curves.meter_row[curves.pool_curve[pool]]])
    for row in np.unique(curves.meter_row).tolist():
        rows[row] = np.zeros(problem.slots, np.int64)  # no sum of usage
    return rows


def _with_cuts(problem: Problem, cuts: tuple[Cut, ...]) -> Problem:
    """Return the problem with a resource for each cut behind its own."""
    most = _most(problem)
    owner = np.repeat(np.arange(problem.options), np.diff(problem.option_uses))
    owners, resources, amounts = [owner], [problem.use_resource], [problem.use_amount]
    for number, cut in enumerate(cuts):
        counted = (problem.use_resource == cut.resource) & (problem.use_amount >= cut.divisor)
        owners.append(owner[counted])
        resources.append(np.full(int(counted.sum()), problem.resources + number, np.int64))
        amounts.append(problem.use_amount[counted] // cut.divisor)
    order = np.argsort(np.concatenate(owners), kind="stable")
    uses = np.concatenate(([0], np.cumsum(np.bincount(np.concatenate(owners), minlength=problem.options))))
    names = [ResourceNames.multiple(problem.resource_keys[cut.resource], cut.divisor) for cut in cuts]
    rows = [most[cut.resource] // cut.divisor for cut in cuts]
    none = np.full(len(cuts), -1, np.int64)
    return replace(
        problem,
        resource_keys=(*problem.resource_keys, *map(Resource, names)),
        capacity=np.vstack((problem.capacity, *rows)),
        option_uses=uses.astype(np.int64),
        use_resource=np.concatenate(resources)[order],
        use_amount=np.concatenate(amounts)[order],
        curves=problem.curves._replace(row_pool=np.concatenate((problem.curves.row_pool, none))),
    )


def cut_certificate(prices: CutPrices) -> PriceCertificate:
    """Return the prices of the resources and of their cuts as whole numbers."""
    problem = prices.presolved.problem
    every = certificate_of(problem, prices.price)
    own = problem.resources - len(prices.cuts)
    return replace(every, price=every.price[:own], cuts=prices.cuts, cut_price=every.price[own:])
