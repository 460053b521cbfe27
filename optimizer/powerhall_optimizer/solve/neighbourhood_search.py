"""Large neighbourhood search: many small destroy-and-repair moves, the halls shared out over the threads.

Each round gives every thread a part of the halls, the jobs that run there, a part of the waiting jobs, and an equal
part of what is left of the resources that halls share. So the threads need no locks: each books only within its own
part, and their placements fit together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints, Schedule
from powerhall_optimizer.problem.usage import usage_of
from powerhall_optimizer.solve.kernels.destroy_repair import MoveSettings, Neighbourhood, SearchGuidance, search
from powerhall_optimizer.solve.kernels.kernel_arrays import PriceBasis, WorkingSchedule
from powerhall_optimizer.solve.presolve import PresolvedProblem, profile_prices
from powerhall_optimizer.solve.price_greedy import merits, value_of
from powerhall_optimizer.solve.prices import evaluate
from powerhall_optimizer.solve.stage import SolveBudget, SolverState
from powerhall_optimizer.solve.work import Costs, Pace

__all__ = ["NeighbourhoodSearch"]

Floats = npt.NDArray[np.float64]
_MOST_MOVES = 2_000
"""Moves of one round and thread, at most: threads exchange halls and jobs only between rounds."""
_MOST_OUT, _MOST_IN = 20, 20
"""One move takes out fewer running jobs, and offers fewer waiting ones, than this."""


@dataclass(frozen=True, slots=True)
class NeighbourhoodSearch:
    """The stage: rounds of about `round_seconds`, until the work is done or the target gap is reached.

    Simulated annealing: losses are accepted at first, fewer and fewer later. `hot` and `cold` are the first and the
    last temperature as shares of the mean value of a placed job.
    """

    round_seconds: float = 0.2
    first_moves: int = 200
    hot: float = 0.05
    cold: float = 0.003

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Raise the value of the schedule; the bound stays as it is."""
        if state.presolved.problem.options == 0:
            return state
        rounds = _Rounds.of(state, budget)
        mean = _mean_value(state)
        moves, total = self._moves(state, budget)
        pace = Pace(budget, total)
        now, done = state, 0
        progress = pace.at(0)
        while progress < 1.0 and state.gap > budget.target_gap:
            heat = mean * self.hot * (self.cold / self.hot) ** progress
            now = rounds.run(now, moves, heat)
            state = state.better(now.schedule, now.value)
            done += 1
            progress = pace.at(done)
        return state

    def _moves(self, state: SolverState, budget: SolveBudget) -> tuple[int, int]:
        """Return the moves of a round and thread, and the number of rounds."""
        if budget.iterations is not None:
            return self.first_moves, budget.iterations
        most = budget.steps(Costs.of(state.presolved).move, 1, 1 << 40)
        rounds = max(8, round(budget.work_s / self.round_seconds), most // _MOST_MOVES)
        return max(10, most // rounds), max(1, min(rounds, most // 10))


def _mean_value(state: SolverState) -> float:
    """Mean value of a placed job, at least 1."""
    placed = max(1, int((state.schedule.option >= 0).sum()))
    waiting = int(state.presolved.problem.job_wait_value[state.schedule.option < 0].sum())
    return max(1.0, (state.value - waiting) / placed)


@dataclass(frozen=True, slots=True)
class _Rounds:
    """Data shared by all rounds of a search, and the random stream that deals out halls, jobs and seeds."""

    presolved: PresolvedProblem
    budget: SolveBudget
    order: Ints  # [J] jobs by falling merit
    guidance: SearchGuidance
    random: np.random.Generator

    @staticmethod
    def of(state: SolverState, budget: SolveBudget) -> _Rounds:
        """Prepare the rounds at the prices of a state."""
        presolved = state.presolved
        capacity = presolved.problem.capacity
        zero = np.zeros(capacity.shape)
        price = state.price if state.price is not None else zero
        merit, area = merits(presolved, evaluate(presolved, price, budget), profile_prices(presolved, price))
        pairs = np.unique(np.stack((presolved.arrays.option_hall, presolved.arrays.option_profile)), axis=1)
        guidance = SearchGuidance(
            merit=merit,
            area=area,
            basis=PriceBasis(price, profile_prices(presolved, zero), np.maximum(1.0, capacity)),
            hall_pointer=np.searchsorted(pairs[0], np.arange(presolved.halls + 1)).astype(np.int64),
            hall_profile=np.ascontiguousarray(pairs[1]),
        )
        order = np.argsort(-merit, kind="stable")
        return _Rounds(presolved, budget, order, guidance, np.random.default_rng(budget.seed))

    def run(self, state: SolverState, moves: int, heat: float) -> SolverState:
        """Make `moves` moves per thread on disjoint parts of the halls; the value may fall below that of `state`."""
        presolved, random = self.presolved, self.random
        problem = presolved.problem
        option, start = state.schedule.option.copy(), state.schedule.start.copy()
        free = problem.capacity - usage_of(problem, state.schedule)
        workers = max(1, min(self.budget.workers, presolved.halls))
        part_of_hall = random.permutation(np.arange(presolved.halls) % workers)
        part_of_job = _parts(presolved, state.schedule, part_of_hall, random)
        seeds = random.integers(0, 1 << 31, workers)
        shared = presolved.resource_hall < 0

        def work(worker: int) -> None:
            mine = free.copy()
            mine[shared] //= workers
            halls = np.flatnonzero(part_of_hall == worker)
            jobs = self.order[part_of_job[self.order] == worker]
            if len(jobs) == 0 or len(halls) == 0:
                return
            search(
                presolved.arrays,
                Neighbourhood(halls, jobs),
                self.guidance,
                WorkingSchedule(option, start, mine),
                MoveSettings(seeds[worker], moves, heat, _MOST_OUT, _MOST_IN),
            )

        list(self.budget.pool.map(work, range(workers)))
        return replace(state, schedule=Schedule(option, start), value=value_of(presolved, option, start))


def _parts(presolved: PresolvedProblem, schedule: Schedule, part_of_hall: Ints, random: np.random.Generator) -> Ints:
    """Part of every job [J]: that of its hall when it runs, that of a random one of its halls when it waits."""
    arrays = presolved.arrays
    counts = np.diff(arrays.job_options)
    pick = arrays.job_options[:-1] + (random.random(len(counts)) * counts).astype(np.int64)
    shown = np.where(schedule.option >= 0, schedule.option, np.minimum(pick, len(arrays.option_hall) - 1))
    result: Ints = np.where(counts > 0, part_of_hall[arrays.option_hall[shown]], -1)
    return result
