"""One step of the subgradient method for prices of capacities, with jobs alone and with jobs and storage.

Resources whose options are alike share one price (a group). Prices are kept times the mean capacity of their group, so
that a step means the same for GPUs and for W. Steps are taken per coordinate from running first and second moments of
the subgradient (Adam; Kingma and Ba 2015), projected on prices >= 0, in units of the typical value of the group, or of
the price where that is more: prices of a few short hours may have to rise to many times what is typical.
"""

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.presolve import PresolvedProblem

__all__ = ["PriceStep"]

Floats = npt.NDArray[np.float64]
_KEPT, _KEPT_SQUARE = 0.9, 0.98
"""Share of the running moments that a step keeps."""
_NEW, _NEW_SQUARE = 0.1, 0.02
_SAMPLE = 200_000


class PriceStep:
    """Prices per group and slot [G, T], moved step by step; `step` is the length of the first one."""

    def __init__(self, presolved: PresolvedProblem, price: Floats | None, step: float) -> None:
        """Start from prices per resource and slot [R, T], or from 0."""
        self.presolved = presolved
        self.step = step
        self.alone = np.array_equal(presolved.resource_group, np.arange(presolved.groups))  # a group per resource
        capacity = self._grouped(presolved.problem.capacity.astype(float))
        self.mean = np.maximum(1e-9, capacity.mean(axis=1, keepdims=True))
        self.worth = typical_value(presolved) * self.mean
        self.scaled = np.zeros_like(capacity)
        if price is not None:
            size = np.bincount(presolved.resource_group, minlength=presolved.groups)
            self.scaled = self._grouped(price) / size[:, None] * self.mean
        self.first = np.zeros_like(self.scaled)
        self.second = np.zeros_like(self.scaled)
        self.done = 0

    def price(self) -> Floats:
        """Return the prices per resource and slot [R, T]."""
        result: Floats = (self.scaled / self.mean)[self.presolved.resource_group]
        return result

    def move(self, free: Floats, progress: float) -> None:
        """Lower prices where capacity is free, raise them where it lacks; steps fall to 0 as `progress` reaches 1.

        `free` [R, T] is capacity less usage at the current prices: a subgradient of the bound.
        """
        slope = self._grouped(free) / self.mean
        self.done += 1
        self.first = _KEPT * self.first + _NEW * slope
        self.second = _KEPT_SQUARE * self.second + _NEW_SQUARE * slope * slope
        mean = self.first / (1 - _KEPT**self.done)
        size = np.sqrt(self.second / (1 - _KEPT_SQUARE**self.done)) + 1e-3
        length = self.step * np.maximum(self.worth, self.scaled) * (1 - progress) ** 2
        self.scaled = np.maximum(0.0, self.scaled - length * (mean / size))

    def _grouped(self, rows: Floats) -> Floats:
        if self.alone:
            return rows.astype(float)
        total = np.zeros((self.presolved.groups, rows.shape[1]))
        for resource, group in enumerate(self.presolved.resource_group.tolist()):
            total[group] += rows[resource]
        return total


def typical_value(presolved: PresolvedProblem) -> Floats:
    """Return the typical value per unit of capacity and slot of each group [G, 1], from at most 200,000 usage entries.

    They are drawn at random: every n-th entry would meet the same resource again and again where options look alike.
    A group that no entry uses gets the highest typical value: storage may use it, and leftover prices must fall.
    """
    problem = presolved.problem
    entry = _sample(len(problem.use_amount))
    option = np.searchsorted(problem.option_uses, entry, side="right") - 1
    length = np.maximum(1, np.minimum(problem.option_duration[option], problem.slots))
    value = np.abs(problem.option_rate[option]) + np.maximum(0, problem.option_bonus[option]) / length
    density = value / problem.use_amount[entry]
    group = presolved.resource_group[problem.use_resource[entry]]
    total = np.bincount(group, density, minlength=presolved.groups)
    typical = total / np.maximum(1, np.bincount(group, minlength=presolved.groups))
    highest = float(typical.max(initial=0.0)) or 1.0
    return np.where(typical > 0, typical, highest)[:, None]


def _sample(count: int) -> Ints:
    """Return the numbers of the entries to look at, rising."""
    if count <= _SAMPLE:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng(0).integers(0, count, _SAMPLE))
