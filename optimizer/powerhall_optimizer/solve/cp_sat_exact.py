"""CP-SAT on the whole problem, where it is small enough: an optimal schedule, and a bound that closes the gap.

With limits at meters the model has chords of the halls' curves: it is safe, and its optimum need not be the problem's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from powerhall_optimizer.problem.arrays import Problem
from powerhall_optimizer.solve.cp_sat_model import decisions_of, solve_decisions
from powerhall_optimizer.solve.stage import SolveBudget, SolverState

__all__ = ["CpSatExact", "whole_cells"]

EXACT_RATE = 0.5
"""CP-SAT's deterministic time in a reference second."""


@dataclass(frozen=True, slots=True)
class CpSatExact:
    """The stage: runs on the whole problem when it has at most `most_cells` (decision, slot, resource) triples."""

    most_cells: int = 1_500_000

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Solve whole when small; the bound of an optimal answer closes the gap."""
        problem = state.presolved.problem
        if problem.options == 0 or whole_cells(problem) > self.most_cells:
            return state
        jobs = list(range(problem.jobs))
        decisions = [d for job in jobs for d in decisions_of(problem, job)]
        free = problem.capacity
        work = EXACT_RATE * budget.work_s
        answer = solve_decisions(problem, jobs, decisions, free, state.schedule, budget, work)
        if answer is None:
            return state
        better = state.better(answer.schedule, answer.value)
        if len(problem.curves.meter_row):
            return better  # the model has chords of the curves: its bound is none of the problem
        bound = float(np.floor(answer.bound + 1e-6))
        return replace(better, bound=max(bound, float(better.value))) if bound < better.bound else better


def whole_cells(problem: Problem) -> int:
    """(decision, slot, resource) triples of the whole problem."""
    starts = problem.option_latest - problem.option_earliest + 1
    length = np.minimum(problem.option_duration, problem.slots)
    return int((starts * length * np.diff(problem.option_uses)).sum())
