"""CP-SAT on windows: at most 100 jobs of one hall and time window are optimised, all others stay fixed.

Decisions are thinned to the starts of highest value at the prices, and the jobs' present decisions stay among them, so
that no solution is worse than the schedule it starts from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.solve.cp_sat_model import Decision, free_without, solve_decisions
from powerhall_optimizer.solve.presolve import profile_prices
from powerhall_optimizer.solve.stage import SolveBudget, SolverState
from powerhall_optimizer.solve.work import Pace

Floats = npt.NDArray[np.float64]
MOST_JOBS = 100
WINDOW_S = 1.0
"""Reference seconds of a window, its model included."""


@dataclass(frozen=True, slots=True)
class CpSatWindows:
    """The stage: windows of at most `jobs` jobs, `starts` decisions kept per job; `work` in CP-SAT's own time."""

    jobs: int = 60
    starts: int = 12
    work: float = 0.4

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Raise the value of the schedule window by window; the bound stays as it is."""
        problem = state.presolved.problem
        if problem.options == 0:
            return state
        price = state.price if state.price is not None else np.zeros(problem.capacity.shape)
        prefix = profile_prices(state.presolved, price)
        random = np.random.default_rng(budget.seed)
        pace = Pace(budget, budget.iterations or budget.steps(WINDOW_S, 0, 1000))
        for number in range(pace.total if budget.iterations or budget.work_s >= WINDOW_S else 0):
            if pace.at(number) >= 1.0 or state.gap <= budget.target_gap:
                break
            jobs = self._pick(state, random)
            decisions = [d for job in jobs for d in self._decisions(state, job, prefix)]
            free = free_without(problem, state.schedule, jobs)
            answer = solve_decisions(problem, jobs, decisions, free, state.schedule, budget, self.work)
            if answer is not None:
                changed = np.array(jobs)
                before = sum(problem.value(j, *_decision(state.schedule, j)) for j in changed.tolist())
                state = state.better(answer.schedule, state.value + answer.value - before)
        return state

    def _pick(self, state: SolverState, random: np.random.Generator) -> list[int]:
        """Jobs of one hall that touch a random slot's neighbourhood, and as many waiting ones that could run there."""
        problem, arrays = state.presolved.problem, state.presolved.arrays
        option, start = state.schedule.option, state.schedule.start
        hall, slot = random.integers(state.presolved.halls), random.integers(problem.slots)
        safe = np.maximum(option, 0)
        runs = (option >= 0) & (arrays.option_hall[safe] == hall)
        near = runs & (start <= slot + 12) & (start + arrays.option_duration[safe] > slot - 12)
        owner = np.repeat(np.arange(problem.jobs), np.diff(problem.job_options))
        fits = np.zeros(problem.jobs, bool)
        fits[owner[arrays.option_hall == hall]] = True
        half = min(self.jobs, MOST_JOBS) // 2
        inside = random.permutation(np.flatnonzero(near))[:half]
        waiting = random.permutation(np.flatnonzero(fits & (option < 0)))[: 2 * half - len(inside)]
        return [int(job) for job in np.concatenate((inside, waiting))]

    def _decisions(self, state: SolverState, job: int, prefix: Floats) -> list[Decision]:
        """The present decision and the starts of highest value at the prices, spread over the options."""
        problem, arrays = state.presolved.problem, state.presolved.arrays
        found: list[tuple[float, Decision]] = []
        for option in problem.options_of(job):
            values = problem.values(job, option)
            first = int(problem.option_earliest[option])
            start = np.arange(first, first + len(values))
            stop = np.minimum(problem.slots, start + arrays.option_duration[option])
            row = prefix[arrays.option_profile[option]]
            priced = values - arrays.option_multiple[option] * (row[stop] - row[start])
            top = np.argsort(-priced)[: self.starts]
            found += [(float(priced[i]), Decision(job, option, int(start[i]), int(values[i]))) for i in top]
        found.sort(key=lambda pair: -pair[0])
        decisions = [d for _, d in found[: self.starts]]
        option, begin = _decision(state.schedule, job)
        if option >= 0 and not any(d.option == option and d.start == begin for d in decisions):
            decisions.append(Decision(job, option, begin, problem.value(job, option, begin)))
        return decisions


def _decision(schedule: Schedule, job: int) -> tuple[int, int]:
    return int(schedule.option[job]), int(schedule.start[job])
