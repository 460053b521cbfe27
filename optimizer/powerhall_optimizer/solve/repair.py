"""Repair of the previous plan: decisions that still fit stay, other jobs are inserted where they fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.problem.usage import add_usage, over_limit, usage_of
from powerhall_optimizer.solve.presolve import PresolvedProblem
from powerhall_optimizer.solve.price_greedy import LAST_RESORT, fill, value_of
from powerhall_optimizer.solve.stage import SolveBudget, SolverState


@dataclass(frozen=True, slots=True)
class Repair:
    """The stage: starts from `previous` (decisions that no longer exist count as waiting), or from nothing."""

    previous: Schedule | None = None
    order: Ints | None = None
    """Jobs in the order in which they keep their decisions; None: those that must run first, then by value."""

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Offer the repaired previous schedule; needs no prices but uses those there are."""
        del budget
        presolved = state.presolved
        problem = presolved.problem
        if problem.options == 0:
            return state
        kept = Schedule.empty(problem.jobs)
        if self.previous is not None:
            kept = keep_what_fits(presolved, self.previous, self.order)
        price = state.price if state.price is not None else np.zeros(problem.capacity.shape)
        order = _order(problem)
        must = order[: int((problem.job_wait_value < 0).sum())]
        if (kept.option[must] < 0).any():
            kept = _with_all(presolved, kept, must)
        schedule, value = fill(presolved, kept, order, price)
        return state.better(schedule, value)


def _order(problem: Problem) -> Ints:
    """Jobs that must run first, then by value per slot and largest amount."""
    density = np.zeros(problem.jobs)
    owner = np.repeat(np.arange(problem.jobs), np.diff(problem.job_options))
    largest = np.ones(problem.options)
    share = problem.use_amount / np.maximum(1, problem.capacity.max(axis=1, initial=1))[problem.use_resource]
    np.maximum.at(largest, np.repeat(np.arange(problem.options), np.diff(problem.option_uses)), share)
    np.maximum.at(density, owner, problem.option_rate / largest)
    result: Ints = np.lexsort((-density, problem.job_wait_value * (problem.job_wait_value < 0))).astype(np.int64)
    return result


def keep_what_fits(presolved: PresolvedProblem, previous: Schedule, order: Ints | None = None) -> Schedule:
    """The decisions of `previous` that exist and fit together, in an order (None: jobs that must run first)."""
    problem = presolved.problem
    option, start = previous.option.astype(np.int64), previous.start.astype(np.int64)
    known = (option >= problem.job_options[:-1]) & (option < problem.job_options[1:])
    safe = np.where(known, option, 0)
    known &= (start >= problem.option_earliest[safe]) & (start <= problem.option_latest[safe])
    kept = Schedule(np.where(known, option, -1), np.where(known, start, -1))
    free = problem.capacity - usage_of(problem, kept)
    if (free >= 0).all():
        return kept
    usage = np.zeros_like(problem.capacity)
    option, start = kept.option.copy(), kept.start.copy()
    for job in (_order(problem) if order is None else order).tolist():
        if option[job] < 0:
            continue
        stop = min(problem.slots, int(start[job]) + int(problem.option_duration[option[job]]))
        if not over_limit(problem, usage, int(option[job]))[start[job] : stop].any():
            add_usage(problem, usage, int(option[job]), (int(start[job]), stop))
        else:
            option[job] = start[job] = -1
    return Schedule(option, start)


def _with_all(presolved: PresolvedProblem, kept: Schedule, must: Ints) -> Schedule:
    """Place the jobs that must run, at their smallest options where nothing else works."""
    free_price = np.zeros(presolved.problem.capacity.shape)
    tight = LAST_RESORT / np.maximum(1.0, presolved.problem.capacity)
    attempts = [fill(presolved, kept, must, free_price), fill(presolved, kept, must, tight, 0.0, (1.0,))]
    attempts.append(fill(presolved, Schedule.empty(len(kept.option)), must, tight, 0.0, (1.0,)))
    best = max(attempts, key=lambda found: int((found[0].option[must] >= 0).sum()))
    assert value_of(presolved, best[0].option, best[0].start) == best[1]
    return best[0]
