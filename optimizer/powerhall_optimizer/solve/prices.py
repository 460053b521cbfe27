"""Lagrangian prices: one per resource group and slot, by a subgradient method with momentum.

With the capacities priced the problem falls apart into jobs: each takes its best option and start. The bound

    L(lambda) = sum(lambda * capacity) + sum over jobs of the best (value - priced usage)

is convex in lambda; capacity minus usage is a subgradient, and `price_step` moves along it. Between full evaluations
only the columns near their job's best are priced, which changes the direction a little and the bound not at all: a
bound is taken from full evaluations only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.kernels.kernel_arrays import Columns, PricedDecisions
from powerhall_optimizer.solve.kernels.pricing import price_jobs
from powerhall_optimizer.solve.presolve import PresolvedProblem, profile_prices
from powerhall_optimizer.solve.price_step import PriceStep
from powerhall_optimizer.solve.stage import SolveBudget, SolverState

Floats = npt.NDArray[np.float64]
ROUNDING = 1e-9  # relative margin for float64 sums; the published bound is recomputed exactly


@dataclass(frozen=True, slots=True)
class Evaluation:
    """L(lambda) and the jobs' choices at these prices."""

    bound: float
    usage: Floats  # [R, T]
    gain: Floats  # [J] value less price of the best decision
    choice: Ints  # [J] option or -1
    start: Ints  # [J]
    column_gain: Floats  # [C]


def evaluate(
    presolved: PresolvedProblem, price: Floats, budget: SolveBudget, columns: tuple[Ints, Ints] | None = None
) -> Evaluation:
    """Price all jobs in `budget.workers` threads; with `columns` (options, pointers per job) only over these."""
    problem = presolved.problem
    options, pointers = columns if columns is not None else (presolved.column_option, presolved.job_columns)
    prefix = profile_prices(presolved, price)
    workers = budget.workers
    change = np.zeros((workers, problem.resources, problem.slots + 1))
    gain, column_gain = np.zeros(problem.jobs), np.zeros(len(options))
    choice, start = np.zeros(problem.jobs, np.int64), np.zeros(problem.jobs, np.int64)
    edges = np.searchsorted(pointers, np.linspace(0, len(options), workers + 1))
    edges[0], edges[-1] = 0, problem.jobs

    def part(worker: int) -> None:
        lo, hi = edges[worker], edges[worker + 1]
        result = PricedDecisions(gain, choice, start, change[worker], column_gain)
        price_jobs(presolved.arrays, lo, hi, Columns(pointers, options), prefix, result)

    list(budget.pool.map(part, range(workers)))
    usage = np.cumsum(change.sum(axis=0)[:, :-1], axis=1)
    bound = float((price * problem.capacity).sum() + gain.sum())
    return Evaluation(bound, usage, gain, choice, start, column_gain)


@dataclass(frozen=True, slots=True)
class Prices:
    """The stage: `rounds` iterations at most, fewer where the budget limits them; warm when the state has prices."""

    rounds: int = 1500
    step: float = 0.12
    warm_step: float = 0.02
    full_every: int = 8

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Lower the bound; the schedule stays as it is."""
        presolved = state.presolved
        if presolved.problem.resources == 0 or presolved.problem.jobs == 0:
            zero = np.zeros(presolved.problem.capacity.shape)
            return state.tighter(zero, evaluate(presolved, zero, budget).bound)
        return _descend(self, state, budget)


def _descend(stage: Prices, state: SolverState, budget: SolveBudget) -> SolverState:
    presolved = state.presolved
    steps = PriceStep(presolved, state.price, stage.step if state.price is None else stage.warm_step)
    capacity = presolved.problem.capacity.astype(float)
    began = budget.clock()
    rounds = budget.iterations or stage.rounds
    near: tuple[Ints, Ints] | None = None
    progress = 0.0
    while progress < 1.0:
        price = steps.price()
        full = steps.done % stage.full_every == 0 or progress > 0.9
        at = evaluate(presolved, price, budget, None if full else near)
        if full:
            state = state.tighter(price, at.bound * (1 + ROUNDING) + 1)
            near = _near_columns(presolved, at, 0.01 + 0.1 * (1 - progress) ** 2)
        if state.gap <= budget.target_gap:
            break
        steps.move(capacity - at.usage, progress)
        progress = _progress(steps.done, rounds, began, budget)
    return state


def _progress(done: int, rounds: int, began: float, budget: SolveBudget) -> float:
    share = done / rounds
    if budget.iterations is not None:
        return 1.0 if budget.stop() else share
    left = budget.left()
    if left <= 0.0:
        return 1.0
    spent = budget.clock() - began
    return max(share, spent / (spent + left))


def _near_columns(presolved: PresolvedProblem, at: Evaluation, width: float) -> tuple[Ints, Ints]:
    """Columns whose gain is at most `width` of the job's unpriced value below the job's best."""
    counts = np.diff(presolved.job_columns)
    job = np.repeat(np.arange(len(counts)), counts)
    option = presolved.column_option
    length = np.minimum(presolved.problem.option_duration[option], presolved.problem.slots)
    worth = np.abs(presolved.arrays.option_value[option, 0] * length) + np.abs(presolved.arrays.option_value[option, 1])
    keep = at.column_gain >= at.gain[job] - width * worth
    pointers = np.concatenate(([0], np.cumsum(np.bincount(job[keep], minlength=len(counts)))))
    return option[keep], pointers.astype(np.int64)
