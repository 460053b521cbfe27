"""Interface of the solver's stages: a state that only improves, a budget of time or work, and the protocol."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Cut, PriceCertificate, Problem, Schedule
from powerhall_optimizer.solve.kernels.meter_price import load_pools
from powerhall_optimizer.solve.presolve import PresolvedProblem
from powerhall_optimizer.solve.shards import ClusterPricing

Floats = npt.NDArray[np.float64]
_STEPS = 30  # halvings of an interval in which the point of a line at a meter is sought


@dataclass(frozen=True, slots=True)
class CutPrices:
    """Prices of a problem whose last resources are cuts of others (`solve.count_cuts`)."""

    presolved: PresolvedProblem
    cuts: tuple[Cut, ...]
    price: Floats  # [R + cuts, T]


@dataclass(frozen=True, slots=True)
class SolverState:
    """The best feasible schedule and the best bound so far; `bound` is infinite before the first prices."""

    presolved: PresolvedProblem
    schedule: Schedule
    value: int
    price: Floats | None = None  # [R, T], the prices of the bound
    bound: float = float("inf")
    cuts: CutPrices | None = None
    """The prices of the bound where it has cuts; `price` then is without them."""

    @property
    def gap(self) -> float:
        """(bound - value) / |value|; 0 when both are equal."""
        return gap(self.value, self.bound)

    def better(self, schedule: Schedule, value: int) -> SolverState:
        """This state, or one with the new schedule when its value is higher."""
        return replace(self, schedule=schedule, value=value) if value > self.value else self

    def tighter(self, price: Floats, bound: float) -> SolverState:
        """This state, or one with the new prices when their bound is lower."""
        return replace(self, price=price, bound=bound, cuts=None) if bound < self.bound else self


def gap(value: int, bound: float) -> float:
    """Relative distance of a value from its upper bound, never negative."""
    if bound <= value:
        return 0.0
    return (bound - value) / max(1.0, abs(value))


@dataclass(slots=True)
class WorkLedger:
    """Account of a stage's counted work: steps planned and done, and whether the deadline cut it short."""

    planned: int = 0
    done: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class SolveBudget:
    """Limits of a stage: work in reference seconds (see `solve.work`), a deadline of `clock` as a guard, a stop flag.

    `iterations` replaces both by an exact number of steps.
    """

    deadline: float
    stop: Callable[[], bool]
    pool: ThreadPoolExecutor
    workers: int
    seed: int
    target_gap: float = 0.0
    iterations: int | None = None  # replaces work and clock where a small amount of exact work is wanted
    work_s: float = 0.0
    ledger: WorkLedger = field(default_factory=WorkLedger)
    clock: Callable[[], float] = field(default=time.monotonic)
    pricing: ClusterPricing | None = None
    """Prices the jobs on a cluster; None: in the threads of `pool`."""

    def left(self) -> float:
        """Seconds left, never negative; 0 once stopped."""
        return 0.0 if self.stop() else max(0.0, self.deadline - self.clock())

    def part(self, seconds: float, work_s: float = 0.0) -> SolveBudget:
        """The budget of one stage: an earlier deadline, this much work, and an account of its own."""
        deadline = min(self.deadline, self.clock() + seconds)
        return replace(self, deadline=deadline, work_s=work_s, ledger=WorkLedger())

    def steps(self, cost_s: float, least: int, most: int) -> int:
        """Number of steps of `cost_s` reference seconds that the work allows."""
        return int(min(float(most), max(float(least), self.work_s / cost_s)))


class Stage(Protocol):
    """One step of the pipeline; it may be run alone on any state and never returns a worse one."""

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Improve the schedule or the bound within the budget."""
        ...


def certificate_of(problem: Problem, price: Floats) -> PriceCertificate:
    """Prices rounded to integers; the scale keeps every product with usage, capacity and value inside 64 bits."""
    job_value = np.abs(problem.option_rate).max(initial=0) * float(problem.slots)
    job_value += np.abs(problem.option_bonus).max(initial=0) + np.abs(problem.job_wait_value).max(initial=0)
    largest = max(float((price * problem.capacity).sum()), 64.0 * float(job_value), 1.0)
    bits = int(np.clip(60 - np.ceil(np.log2(largest)), 0, 40))
    whole = np.rint(price * 2.0**bits).astype(np.int64)
    curves = problem.curves
    it_w = np.zeros((len(curves.pool_row), problem.slots))
    load_pools(curves, whole / 2.0**bits, it_w, _STEPS)
    return PriceCertificate(whole, bits, it_w=np.rint(it_w).astype(np.int64))
