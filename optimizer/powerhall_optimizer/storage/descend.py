"""Prices of the capacities with the stores as one more block of the Lagrangian, and what stores do at these prices.

    L(lambda) + S(lambda),   S(lambda) = max over dispatches of sum(lambda * added capacity) - cost

is convex; capacity and what the stores add, less usage, is a subgradient. Steps are those of `solve.prices`. The
dispatches of the steps, averaged with weights that grow with the square of the step, come close to the best dispatch of
the relaxed problem (ergodic primal sequences: Larsson, Patriksson and Stroemberg 1999; weights: Gustavsson, Patriksson
and Stroemberg 2015), while each single one jumps between extremes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.solve.presolve import PresolvedProblem
from powerhall_optimizer.solve.prices import evaluate
from powerhall_optimizer.solve.stage import SolveBudget
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


def descend(
    presolved: PresolvedProblem, model: StorageModel, price: Floats | None, budget: SolveBudget, seconds: float
) -> Descent:
    """Lower L + S from `price` (or from zero) for about `seconds`; on a slow machine until the budget ends."""
    problem = presolved.problem
    grids = [grid_of(store, model) for store in model.units]
    size = np.bincount(presolved.resource_group, minlength=presolved.groups)[:, None]

    def grouped(rows: Floats) -> Floats:
        total = np.zeros((presolved.groups, problem.slots))
        np.add.at(total, presolved.resource_group, rows)
        return total

    capacity = problem.capacity.astype(float)
    mean = np.maximum(1e-9, grouped(capacity).mean(axis=1, keepdims=True))
    worth = _typical(presolved, mean)
    step = _STEP if price is None else _WARM_STEP
    scaled = np.zeros((presolved.groups, problem.slots)) if price is None else grouped(price) / size * mean
    first, second = np.zeros_like(scaled), np.zeros_like(scaled)
    best, best_price = np.inf, np.zeros_like(capacity)
    power_w = [np.zeros(model.slots) for _ in grids]
    weights = 0.0
    began = budget.clock()
    done, progress = 0, 0.0
    while progress < 1.0 or not done:
        now = (scaled / mean)[presolved.resource_group]
        at = evaluate(presolved, now, budget)
        answers = [best_power(grid, now) for grid in grids]
        bound = at.bound + sum(gain for _, gain in answers)
        if bound < best:
            best, best_price = bound, now
        done += 1
        weight = float(done * done)
        weights += weight
        power_w = [p + (w - p) * weight / weights for p, (w, _) in zip(power_w, answers, strict=True)]
        room = capacity - at.usage
        for grid, (watts, _) in zip(grids, answers, strict=True):
            room = room + added_w(grid.store, watts, problem.resources)
        slope = grouped(room) / mean
        first = 0.9 * first + 0.1 * slope
        second = 0.98 * second + 0.02 * slope * slope
        length = step * worth * (1 - progress) ** 1.5
        move = (first / (1 - 0.9**done)) / (np.sqrt(second / (1 - 0.98**done)) + 1e-3)
        scaled = np.maximum(0.0, scaled - length * move)
        spent = (budget.clock() - began) / seconds
        progress = 1.0 if budget.left() <= 0.0 else max(done / _ROUNDS, min(spent, done / _LEAST))
    return Descent(best_price, power_w, done)


def _typical(presolved: PresolvedProblem, mean: Floats) -> Floats:
    """Return a typical value per capacity and slot of each group: what prices are measured in."""
    problem = presolved.problem
    option = np.repeat(np.arange(problem.options), np.diff(problem.option_uses))
    length = np.maximum(1, np.minimum(problem.option_duration, problem.slots))
    value = np.abs(problem.option_rate) + np.maximum(0, problem.option_bonus) / length
    density = value[option] / problem.use_amount
    group = presolved.resource_group[problem.use_resource]
    total = np.bincount(group, density, minlength=presolved.groups)
    counts = np.maximum(1, np.bincount(group, minlength=presolved.groups))
    typical = total / counts
    fallback = float(typical.max(initial=0.0)) or 1.0
    result: Floats = np.where(typical > 0, typical, fallback)[:, None] * mean
    return result
