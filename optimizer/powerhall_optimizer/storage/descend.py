"""Prices of the capacities with storage as one more block of the Lagrangian, and its dispatch at these prices.

    L(lambda) + S(lambda),   S(lambda) = max over dispatches of sum(lambda * added capacity) - cost

is convex; capacity and the power that storage adds, less usage, is a subgradient. Steps are those of
`solve.price_step`. The dispatches of the steps, averaged with weights that grow with the square of the step, come close
to the best dispatch of the relaxed problem (ergodic primal sequences: Larsson, Patriksson and Stroemberg 1999; weights:
Gustavsson, Patriksson and Stroemberg 2015), while each single one jumps between extremes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.solve.presolve import PresolvedProblem
from powerhall_optimizer.solve.price_step import PriceStep
from powerhall_optimizer.solve.prices import evaluate
from powerhall_optimizer.solve.stage import SolveBudget
from powerhall_optimizer.solve.work import Costs, Pace
from powerhall_optimizer.storage.best_response import added_w, best_power, grid_of
from powerhall_optimizer.storage.model import StorageModel

__all__ = ["Descent", "descend"]

Floats = npt.NDArray[np.float64]
_STEP, _WARM_STEP = 0.12, 0.03
_ROUNDS, _LEAST = 400, 120


@dataclass(frozen=True, slots=True)
class Descent:
    """The prices of the lowest bound that was seen, the averaged dispatch in W, and the number of rounds."""

    price: Floats
    power_w: list[Floats]
    rounds: int


def descend(presolved: PresolvedProblem, model: StorageModel, price: Floats | None, budget: SolveBudget) -> Descent:
    """Lower L + S from `price` (or from zero) by the budget's work, at least `_LEAST` rounds where time allows."""
    problem = presolved.problem
    grids = [grid_of(store, model) for store in model.units]
    steps = PriceStep(presolved, price, _STEP if price is None else _WARM_STEP)
    none = np.zeros(problem.capacity.shape)
    best, best_price = np.inf, none
    power_w = [np.zeros(model.slots) for _ in grids]
    weights = 0.0
    cost_s = 1.5 * Costs.of(presolved).price_round + 2e-3 * len(grids)  # every column, and a best response per unit
    pace = Pace(budget, budget.steps(cost_s, _LEAST, _ROUNDS))
    progress = 0.0
    while progress < 1.0 or not steps.done:
        now = steps.price()
        added = sum((added_w(g.store, w, problem.resources) for g, w in zip(grids, power_w, strict=True)), none)
        at = evaluate(presolved, now, budget, None, added)
        now = at.price
        answers = [best_power(grid, now) for grid in grids]
        bound = at.bound + sum(gain for _, gain in answers)
        if bound < best:
            best, best_price = bound, now
        weight = float((steps.done + 1) ** 2)
        weights += weight
        power_w = [p + (w - p) * weight / weights for p, (w, _) in zip(power_w, answers, strict=True)]
        free = at.free
        for grid, (watts, _) in zip(grids, answers, strict=True):
            free = free + added_w(grid.store, watts, problem.resources)
        steps.move(free, progress)
        progress = pace.at(steps.done)
    return Descent(best_price, power_w, steps.done)
