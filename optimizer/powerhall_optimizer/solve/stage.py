"""Interface of the solver's stages: a state that only improves, a budget of time or work, and the protocol."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints, PriceCertificate, Problem, Schedule
from powerhall_optimizer.solve.presolve import PresolvedProblem

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SolverState:
    """The best feasible schedule and the best bound so far; `bound` is infinite before the first prices."""

    presolved: PresolvedProblem
    schedule: Schedule
    value: int
    price: Floats | None = None  # [R, T], the prices of the bound
    bound: float = float("inf")

    @property
    def gap(self) -> float:
        """(bound - value) / |value|; 0 when both are equal."""
        return gap(self.value, self.bound)

    def better(self, schedule: Schedule, value: int) -> SolverState:
        """This state, or one with the new schedule when its value is higher."""
        return replace(self, schedule=schedule, value=value) if value > self.value else self

    def tighter(self, price: Floats, bound: float) -> SolverState:
        """This state, or one with the new prices when their bound is lower."""
        return replace(self, price=price, bound=bound) if bound < self.bound else self


def gap(value: int, bound: float) -> float:
    """Relative distance of a value from its upper bound, never negative."""
    if bound <= value:
        return 0.0
    return (bound - value) / max(1.0, abs(value))


@dataclass(frozen=True, slots=True)
class SolveBudget:
    """Limits of a stage: a deadline of `clock`, a stop flag, and optionally an exact number of iterations."""

    deadline: float
    stop: Callable[[], bool]
    pool: ThreadPoolExecutor
    workers: int
    seed: int
    target_gap: float = 0.0
    iterations: int | None = None  # replaces the clock where exact repetition matters
    clock: Callable[[], float] = field(default=time.monotonic)

    def left(self) -> float:
        """Seconds left, never negative; 0 once stopped."""
        return 0.0 if self.stop() else max(0.0, self.deadline - self.clock())

    def part(self, seconds: float) -> SolveBudget:
        """The same budget with an earlier deadline."""
        return replace(self, deadline=min(self.deadline, self.clock() + seconds))


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
    return PriceCertificate(np.rint(price * 2.0**bits).astype(np.int64), bits)


def usage_of(problem: Problem, schedule: Schedule) -> Ints:
    """Usage [R, T] of a schedule."""
    change = np.zeros((problem.resources, problem.slots + 1), np.int64)
    job = np.flatnonzero(schedule.option >= 0)
    option, start = schedule.option[job], schedule.start[job]
    counts = problem.option_uses[option + 1] - problem.option_uses[option]
    offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    entry = np.repeat(problem.option_uses[option], counts) + offset
    begin = np.repeat(start, counts)
    end = np.minimum(problem.slots, begin + np.repeat(problem.option_duration[option], counts))
    np.add.at(change, (problem.use_resource[entry], begin), problem.use_amount[entry])
    np.add.at(change, (problem.use_resource[entry], end), -problem.use_amount[entry])
    usage: Ints = np.cumsum(change[:, :-1], axis=1)
    return usage
