"""Counted work: how many steps a stage makes in its time, from the sizes of the problem and never from a clock.

A stage gets *reference seconds*: seconds of one idle machine (2 cores of a 2.1 GHz Xeon, 2026). The formulas below
turn them into numbers of steps; they were fitted to CPU seconds measured on problems of 12 to 10,000 jobs. So the same
inputs give the same work on a busy and on an idle machine, and with the same seed the same schedule. The clock is only
a guard: where a stage has used much of its time with little of its work done, it hurries to end in time, and its
report says that the deadline cut it short.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerhall_optimizer.solve.presolve import PresolvedProblem
from powerhall_optimizer.solve.stage import SolveBudget

__all__ = ["Costs", "Pace"]

_PATIENCE = 0.3
"""Part of a stage's time in which the clock has no say."""


class Pace:
    """Progress of a stage through `total` steps of its work, hurried along where time runs out."""

    def __init__(self, budget: SolveBudget, total: int) -> None:
        """Start the clock of a stage."""
        self.budget = budget
        self.total = max(1, total)
        self.began = budget.clock()
        budget.ledger.planned += self.total
        self.longest = self.asked_s = 0.0
        self.asked = 0

    def at(self, done: int) -> float:
        """Return the progress after `done` steps, from 0 to 1; the stage ends at 1."""
        share = done / self.total
        if self.budget.iterations is None:
            gone = self.budget.clock() - self.began
            window = max(1e-9, self.budget.deadline - self.began)
            late = (gone / window - _PATIENCE) / (1.0 - _PATIENCE)
            if done and gone + self._longest_step(done, gone) > window:
                late = 1.0  # the next step would end after the deadline, and be lost
        else:
            late = 0.0
        if self.budget.stop():
            late = 1.0
        if late > share and share < 1.0:
            self.budget.ledger.cut = True
            share = late
        self.budget.ledger.done = max(self.budget.ledger.done, min(done, self.total))
        return min(1.0, share)

    def _longest_step(self, done: int, gone: float) -> float:
        """Return the seconds of the longest step seen, for steps that are asked about one by one."""
        if done > self.asked:
            self.longest = max(self.longest, (gone - self.asked_s) / (done - self.asked))
            self.asked, self.asked_s = done, gone
        return self.longest


@dataclass(frozen=True, slots=True)
class Costs:
    """Reference seconds of one step of each stage, all threads together."""

    price_round: float
    """One evaluation of the prices over the columns near the best, with every eighth over all."""
    greedy: float
    """One greedy schedule."""
    move: float
    """One move of the neighbourhood search."""
    decode: float
    """One list schedule of the annealing."""

    @staticmethod
    def of(presolved: PresolvedProblem) -> Costs:
        """Estimate the costs from the sizes of a problem."""
        arrays, slots = presolved.arrays, presolved.problem.slots
        starts = arrays.option_latest - arrays.option_earliest + 1
        length = np.minimum(arrays.option_duration, slots)
        span = np.minimum(slots, starts + length)
        uses = np.diff(arrays.profile_uses)[arrays.option_profile] if len(arrays.option_profile) else starts
        jobs = max(1, presolved.problem.jobs)
        owner = np.repeat(np.arange(presolved.problem.jobs), np.diff(arrays.job_options))
        placed = max(1, len(np.unique(owner[starts > 1])))  # jobs with a choice of starts: moves seek places for these
        rows = len(arrays.profile_uses) + presolved.problem.resources
        columns = presolved.column_option
        pricing = float(starts[columns].sum()) if len(columns) else 0.0
        fits = float((span * (uses + 2)).sum())
        per_job = float((starts + 0.3 * span * (uses + 2)).sum()) / placed
        meter = _MeterCosts.of(presolved)
        front = 1.0 + (jobs - placed) / jobs  # running jobs lead the order: a move of one decodes all of it
        nearby = 0.6 + 0.4 / presolved.halls  # a move is about one to three halls
        return Costs(
            price_round=5e-4 + 1.8e-10 * pricing + 6e-8 * len(columns) + 4e-9 * rows * slots + meter.pricing,
            greedy=3e-4 + 1.3e-9 * fits + 1.5e-7 * meter.read,
            move=2e-6
            + 1e-9 * nearby * min(20.0, jobs / 2) * per_job
            + 1e-9 * rows * slots
            + 1.6e-7 * min(20.0, jobs / 2) * meter.sought / placed,
            decode=3e-6 + front * (3.3e-10 * fits / max(1.0, presolved.problem.options / jobs) + meter.steps),
        )


@dataclass(frozen=True, slots=True)
class _MeterCosts:
    """What limits at meters add, for halls whose jobs draw by curves."""

    pricing: float
    """Reference seconds of one pricing of all meters: halls of several node types are filled pool by pool."""
    steps: float
    """Reference seconds of the readings of a list schedule: none where a meter counts one pool alone."""
    read: float
    """Readings of curves when every job is booked once: one per slot, fewer where the weather stays the same."""
    sought: float
    """Readings when a place is sought for every job once: in each slot in which it may run."""

    @staticmethod
    def of(presolved: PresolvedProblem) -> _MeterCosts:
        problem = presolved.problem
        curves, slots = problem.curves, problem.slots
        if not len(curves.meter_row):
            return _MeterCosts(0.0, 0.0, 0.0, 0.0)
        pools = np.diff(curves.first)
        pricing = slots * (3e-7 * float((pools == 1).sum()) + 1.3e-6 * float(pools[pools > 1].sum()))
        metered = np.zeros(problem.options, np.bool_)
        owner = np.repeat(np.arange(problem.options), np.diff(problem.option_uses))
        metered[owner[curves.row_pool[problem.use_resource] >= 0]] = True
        length = np.minimum(problem.option_duration, slots)[metered]
        changes = float((np.diff(curves.weather, axis=1) != 0).mean()) if slots > 1 else 0.0
        starts = (problem.option_latest - problem.option_earliest + 1)[metered]
        span = np.minimum(slots, starts + length)
        each = problem.jobs / max(1, problem.options)
        changing = 0.04 + 0.96 * changes
        every = float(length.sum()) * each
        read, sought = changing * every, changing * float(span.sum()) * each
        by_steps = float((pools == 1).mean())
        steps = 0.0 if len(curves.pool_row) == 1 else 1.3e-8 * by_steps * every + 9e-8 * (1.0 - by_steps) * read
        return _MeterCosts(pricing, steps, read, sought)
