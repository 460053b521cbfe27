"""Prices on a grid of longer slots, as a start for those of the problem: most of the way at a part of the cost.

A round of pricing costs about as much as there are starts and slots. The coarse problem has a sixth of both, so that it
takes hundreds of rounds in the time of a few dozen. A price of a long slot is spread evenly over its short ones; it
proves a bound of the fine problem like any other price.
"""

from dataclasses import dataclass, replace

import numpy as np

from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.solve.coarse_grid import coarsen
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.price_step import PriceStep
from powerhall_optimizer.solve.prices import ROUNDING, Prices, evaluate
from powerhall_optimizer.solve.stage import SolveBudget, SolverState

__all__ = ["FEW_STEPS", "CoarsePrices"]

FEW_STEPS = 600
"""With fewer steps prices prove next to nothing: with 189 a site of 44,000 nodes had a gap of 21 %."""


@dataclass(frozen=True, slots=True)
class CoarsePrices:
    """The stage, for a state that has no prices; slots are `factor` times as long."""

    factor: int = 6

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Lower the bound by prices of long slots; the schedule stays as it is."""
        fine = state.presolved.problem
        if state.price is not None or fine.slots < 2 * self.factor or not fine.jobs:
            return state
        coarse = coarsen(fine, self.factor).problem
        begun = SolverState(presolve(coarse), Schedule.empty(coarse.jobs), int(coarse.job_wait_value.sum()))
        found = Prices(least=FEW_STEPS).run(begun, replace(budget, target_gap=0.0))
        if found.price is None:
            return state
        price = np.repeat(found.price / self.factor, self.factor, axis=1)[:, : fine.slots]
        at = evaluate(state.presolved, PriceStep(state.presolved, price, 0.0).price(), budget)
        return state.tighter(at.price, at.bound * (1 + ROUNDING) + 1)
