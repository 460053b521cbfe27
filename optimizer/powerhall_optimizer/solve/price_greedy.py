"""Price-guided greedy: serial schedule generation, each job at the decision of greatest value less price that fits.

Fixed prices leave ties: every job that is indifferent between two slots or halls takes the same one. So prices follow
the placed jobs: up where a resource is ahead of the mean fill, down where it is behind. The first pass runs at full
prices, later ones at lower ones, the last at zero fills what is still free. Jobs that must run come first.

Several orders are tried, one per thread at a time; the best schedule wins. The first orders differ in how much large
gangs are preferred; from the best of them each thread continues by raising the rank of each job by its regret, the
share of its value at the prices that the schedule denied it (squeaky wheel optimization, Joslin
and Clements 1999).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints, Schedule
from powerhall_optimizer.problem.standing import job_worth
from powerhall_optimizer.problem.usage import usage_of
from powerhall_optimizer.solve.kernels.decision_value import priced_values, total_value
from powerhall_optimizer.solve.kernels.insertion import insert_all
from powerhall_optimizer.solve.kernels.kernel_arrays import (
    BONUS,
    RATE,
    WAIT_VALUE,
    FillRule,
    PriceBasis,
    WorkingSchedule,
)
from powerhall_optimizer.solve.presolve import PresolvedProblem, profile_prices
from powerhall_optimizer.solve.prices import Evaluation, evaluate
from powerhall_optimizer.solve.stage import SolveBudget, SolverState
from powerhall_optimizer.solve.work import Costs, Pace

Floats = npt.NDArray[np.float64]
SCALES = (1.0, 0.9, 0.6, 0.0)
AREA_WEIGHTS = (0.12, 0.25, 0.05)  # how much a large gang is preferred to a small one of equal merit
SLOPES = (0.4, 0.3)  # how strongly prices follow the fill, one per thread in turn
SQUEAK = 0.3  # rank gained by a job that is denied all of its value
_FIRST = 1e6  # added to the rank of jobs that run: merits are of the order of 1, of jobs that must run of 1e3
LAST_RESORT = 1e3  # price scale at which jobs that must run take their smallest option
RENEWALS = 2e9  # multiplications spent on following prices in one pass, at most


@dataclass(frozen=True, slots=True)
class PriceGreedy:
    """The stage: tries at most `tries` orders, at least one."""

    tries: int = 30

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Keep the best of several greedy schedules; the bound stays as it is."""
        presolved = state.presolved
        problem = presolved.problem
        if problem.options == 0:
            return state
        price = state.price if state.price is not None else np.zeros(problem.capacity.shape)
        wheel = _SqueakyWheel.at(presolved, price, evaluate(presolved, price, budget))
        workers = budget.workers
        tries = self.tries
        if budget.iterations is None:
            tries = budget.steps(Costs.of(presolved).greedy, len(AREA_WEIGHTS), self.tries)
        pace = Pace(budget, tries)

        def build(entry: tuple[int, Floats]) -> tuple[Floats, Schedule, int] | None:
            number, rank = entry
            if number > 0 and pace.at(number) >= 1.0:
                return None
            schedule, value = greedy_schedule(presolved, rank, price, SLOPES[number % workers % len(SLOPES)])
            return rank, schedule, value

        ranks = wheel.first_ranks(self.tries)
        found = [f for f in budget.pool.map(build, enumerate(ranks)) if f is not None]
        done, best = len(ranks), max(found, key=lambda f: f[2])
        state = state.better(*best[1:])
        chains = [best] * workers
        while pace.at(done) < 1.0:
            entries = [(done + i, wheel.turn(rank, schedule)) for i, (rank, schedule, _) in enumerate(chains)]
            chains = [f or chains[i] for i, f in enumerate(budget.pool.map(build, entries))]
            done += workers
            for _, schedule, value in chains:
                state = state.better(schedule, value)
        return state


@dataclass(frozen=True, slots=True)
class _SqueakyWheel:
    """Ranks of jobs, which rise with the value that a schedule denies them; all arrays are [J]."""

    presolved: PresolvedProblem
    merit: Floats
    area: Floats
    gain: Floats  # best value less price
    worth: Floats
    prefix: Floats  # [P, T + 1]

    @staticmethod
    def at(presolved: PresolvedProblem, price: Floats, evaluation: Evaluation) -> _SqueakyWheel:
        """The wheel at these prices."""
        prefix = profile_prices(presolved, price)
        merit, area = merits(presolved, evaluation, prefix)
        problem = presolved.problem
        worth = np.ones(problem.jobs)
        length = np.minimum(problem.option_duration, problem.slots)
        owner = np.repeat(np.arange(problem.jobs), np.diff(problem.job_options))
        np.maximum.at(worth, owner, problem.option_rate * length + np.maximum(0, problem.option_bonus).astype(float))
        return _SqueakyWheel(presolved, merit, area, evaluation.gain, worth, prefix)

    def first_ranks(self, most: int) -> list[Floats]:
        """Return the first orders: running jobs first, and once each job by its merit, the cost of stopping in it."""
        running = self.presolved.problem.job_wait_value < 0
        ranks = [self.merit + weight * self.area + _FIRST * running for weight in AREA_WEIGHTS[:most]]
        return [*ranks, self.merit + AREA_WEIGHTS[0] * self.area] if running.any() and most > len(ranks) else ranks

    def turn(self, rank: Floats, schedule: Schedule) -> Floats:
        """The next rank after a schedule that came from `rank`."""
        got = np.zeros(len(rank))
        priced_values(self.presolved.arrays, schedule.option, schedule.start, self.prefix, got)
        return rank + SQUEAK * np.clip((self.gain - got) / self.worth, 0.0, 1.0)


def merits(presolved: PresolvedProblem, at: Evaluation, prefix: Floats) -> tuple[Floats, Floats]:
    """Per job: best (value less price) per unit of value, and log of the price of running at all."""
    counts = np.diff(presolved.job_columns)
    job = np.repeat(np.arange(len(counts)), counts)
    top = np.full(len(counts), -np.inf)
    np.maximum.at(top, job, at.column_gain)
    option = presolved.column_option
    arrays = presolved.arrays
    length = np.minimum(arrays.option_duration[option], prefix.shape[1] - 1)
    worth = arrays.option_value[option, RATE] * length + np.maximum(0, arrays.option_value[option, BONUS])
    most = np.ones(len(counts))
    np.maximum.at(most, job, worth)
    profile = arrays.option_profile[option]
    area = np.full(len(counts), 1.0)
    np.maximum.at(area, job, arrays.option_multiple[option] * prefix[profile, -1] / (prefix.shape[1] - 1) * length)
    return np.maximum(-1.0, (top - np.minimum(0, arrays.job_value[:, WAIT_VALUE])) / most), np.log(
        np.maximum(1.0, area)
    )


def greedy_schedule(presolved: PresolvedProblem, merit: Floats, price: Floats, slope: float) -> tuple[Schedule, int]:
    """One schedule: jobs by falling merit, one pass per price scale."""
    problem = presolved.problem
    must = problem.job_wait_value < -job_worth(problem)
    order = np.argsort(-merit, kind="stable")
    found = fill(presolved, Schedule.empty(problem.jobs), order, price, slope)
    if must.any() and (found[0].option[must] < 0).any():
        tight = LAST_RESORT * (price + 1.0 / np.maximum(1, problem.capacity))
        small = fill(presolved, Schedule.empty(len(must)), order[must[order]], tight, slope, (1.0,))[0]
        found = max(found, fill(presolved, small, order, price, slope), key=lambda pair: pair[1])
    return found


def fill(  # noqa: PLR0917
    presolved: PresolvedProblem,
    schedule: Schedule,
    order: Ints,
    price: Floats,
    slope: float = 0.0,
    scales: tuple[float, ...] = SCALES,
) -> tuple[Schedule, int]:
    """Place waiting jobs into the free capacity of a feasible schedule; returns the new schedule and its value."""
    problem = presolved.problem
    free = problem.capacity - usage_of(problem, schedule)
    working = WorkingSchedule(schedule.option.copy(), schedule.start.copy(), free)
    energy = profile_prices(presolved, np.zeros(problem.capacity.shape))
    basis = PriceBasis(price, energy, np.maximum(1.0, problem.capacity))
    cost = float(problem.slots) * len(presolved.arrays.profile_amount)
    every = max(8, int(np.ceil(len(order) * cost / RENEWALS)))
    for scale in scales if price.any() else scales[:1]:  # prices of 0 are the same at every scale
        renew = every if scale == scales[0] and slope > 0 else len(order) + 1
        insert_all(presolved.arrays, order, basis, FillRule(0.0, slope, scale), renew, working)
    return Schedule(working.option, working.start), value_of(presolved, working.option, working.start)


def value_of(presolved: PresolvedProblem, option: Ints, start: Ints) -> int:
    """Value of a feasible schedule, exact (all sums stay below 2**53)."""
    energy = profile_prices(presolved, np.zeros(presolved.problem.capacity.shape))
    return int(total_value(presolved.arrays, option, start, energy))
