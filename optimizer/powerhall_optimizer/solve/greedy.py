"""Price-guided greedy: jobs enter in an order, each at the decision worth most at the prices among those that fit.

Every pass runs at prices scaled down further; the last one at zero fills what is still free. Jobs that must run come
first. Several orders are tried, one per thread at a time; the best schedule wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem import Ints, Schedule
from powerhall_optimizer.solve import kernels
from powerhall_optimizer.solve.compiled import Compiled, profile_prices
from powerhall_optimizer.solve.prices import Evaluation, evaluate
from powerhall_optimizer.solve.stage import Budget, State, usage_of

Floats = npt.NDArray[np.float64]
SCALES = (1.0, 0.9, 0.6, 0.0)
AREA_WEIGHTS = (0.05, 0.08, 0.03, 0.12, 0.0)  # how much a large gang is preferred to a dense one of equal merit
LAST_RESORT = 1e3  # price scale at which jobs that must run take their smallest option


@dataclass(frozen=True, slots=True)
class Greedy:
    """The stage: tries at most `tries` orders, at least one."""

    tries: int = 6

    def run(self, state: State, budget: Budget) -> State:
        """Keep the best of several greedy schedules; the bound stays as it is."""
        compiled = state.compiled
        problem = compiled.problem
        if problem.options == 0:
            return state
        price = state.price if state.price is not None else np.zeros(problem.capacity.shape)
        prefixes = [profile_prices(compiled, price * scale) for scale in SCALES]
        merit = _merits(compiled, evaluate(compiled, price, budget), prefixes[0])
        random = np.random.default_rng(budget.seed)
        noise = random.standard_normal((self.tries, problem.jobs))

        def build(number: int) -> tuple[Schedule, int] | None:
            if number > 0 and budget.iterations is None and budget.left() <= 0:
                return None
            weight = AREA_WEIGHTS[number % len(AREA_WEIGHTS)]
            spread = 0.02 * (number // len(AREA_WEIGHTS))
            return greedy_schedule(compiled, merit[0] + weight * merit[1] + spread * noise[number], prefixes)

        for found in budget.pool.map(build, range(self.tries)):
            if found is not None:
                state = state.better(*found)
        return state


def _merits(compiled: Compiled, at: Evaluation, prefix: Floats) -> tuple[Floats, Floats]:
    """Per job: best (value less price) per unit of worth, and log of the price of running at all."""
    counts = np.diff(compiled.job_columns)
    job = np.repeat(np.arange(len(counts)), counts)
    top = np.full(len(counts), -np.inf)
    np.maximum.at(top, job, at.column_gain)
    option = compiled.column_option
    tables = compiled.tables
    length = np.minimum(tables.option_duration[option], prefix.shape[1] - 1)
    worth = tables.option_value[option, 0] * length + np.maximum(0, tables.option_value[option, 1])
    most = np.ones(len(counts))
    np.maximum.at(most, job, worth)
    profile = tables.option_profile[option]
    area = np.full(len(counts), 1.0)
    np.maximum.at(area, job, tables.option_multiple[option] * prefix[profile, -1] / (prefix.shape[1] - 1) * length)
    return np.maximum(-1.0, (top - np.minimum(0, compiled.tables.job_value[:, 0])) / most), np.log(
        np.maximum(1.0, area)
    )


def greedy_schedule(compiled: Compiled, merit: Floats, prefixes: list[Floats]) -> tuple[Schedule, int]:
    """One schedule: jobs by falling merit, those that must run first, one pass per list of prices."""
    must = compiled.problem.job_wait_value < 0
    order = np.lexsort((-merit, compiled.problem.job_wait_value)) if must.any() else np.argsort(-merit, kind="stable")
    start = fill(compiled, Schedule.empty(compiled.problem.jobs), order, prefixes)
    if must.any() and (start[0].option[must] < 0).any():
        small = fill(compiled, Schedule.empty(len(must)), order[: int(must.sum())], [prefixes[0] * LAST_RESORT])[0]
        start = max(start, fill(compiled, small, order, prefixes), key=lambda found: found[1])
    return start


def fill(compiled: Compiled, schedule: Schedule, order: Ints, prefixes: list[Floats]) -> tuple[Schedule, int]:
    """Place waiting jobs into what a feasible schedule leaves free; returns the new schedule and its value."""

    problem = compiled.problem
    free = problem.capacity - usage_of(problem, schedule)
    option, start = schedule.option.copy(), schedule.start.copy()
    allowed = np.ones(compiled.blocks, np.bool_)
    for prefix in prefixes:
        kernels.insert(compiled.tables, order, prefix, free, allowed, option, start, 0.0)
    return Schedule(option, start), value_of(compiled, option, start)


def value_of(compiled: Compiled, option: Ints, start: Ints) -> int:
    """Value of a feasible schedule, exact (all sums stay below 2**53)."""
    energy = profile_prices(compiled, np.zeros(compiled.problem.capacity.shape))
    return int(kernels.total_value(compiled.tables, option, start, energy))
