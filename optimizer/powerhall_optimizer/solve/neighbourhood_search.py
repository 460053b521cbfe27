"""Neighbourhood search: many small destroy-and-repair moves in compiled code, halls shared out over the threads.

Each round gives every thread a part of the halls, the jobs that run there, a part of the waiting jobs, and an equal
part of what is left of the resources that halls share. Whatever the threads do then fits together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints, Schedule
from powerhall_optimizer.solve import moves
from powerhall_optimizer.solve.presolve import PresolvedProblem, profile_prices
from powerhall_optimizer.solve.price_greedy import merits, value_of
from powerhall_optimizer.solve.prices import evaluate
from powerhall_optimizer.solve.stage import SolveBudget, SolverState, usage_of

Floats = npt.NDArray[np.float64]
MOST_MOVES = 2_000  # per round and thread
SIZES = (20, 20)  # jobs taken out and waiting jobs offered per move, at most


@dataclass(frozen=True, slots=True)
class NeighbourhoodSearch:
    """The stage: rounds of about `round_seconds`, until time is up or the target gap is reached.

    It accepts losses at first and fewer and fewer later (simulated annealing); `hot` and `cold` are the first and last
    heat as shares of the mean worth of a placed job.
    """

    round_seconds: float = 0.5
    first_moves: int = 200
    hot: float = 0.05
    cold: float = 0.003

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Raise the value of the schedule; the bound stays as it is."""
        if state.presolved.problem.options == 0:
            return state
        ground = _ground(state, budget)
        random = np.random.default_rng(budget.seed)
        placed = max(1, int((state.schedule.option >= 0).sum()))
        waiting = int(state.presolved.problem.job_wait_value[state.schedule.option < 0].sum())
        mean = max(1.0, (state.value - waiting) / placed)
        now, count, rounds, began = state, self.first_moves, 0, budget.clock()
        progress = 0.0
        while progress < 1.0 and state.gap > budget.target_gap and not budget.stop():
            at = budget.clock()
            heat = mean * self.hot * (self.cold / self.hot) ** progress
            now = one_round(now, budget, random, ground, count, heat)
            state = state.better(now.schedule, now.value)
            rounds += 1
            if budget.iterations is not None:
                progress = rounds / budget.iterations
                continue
            spent = max(1e-4, budget.clock() - at)
            wanted = int(count / spent * min(self.round_seconds, max(0.02, budget.left())))
            count = min(max(10, wanted), 4 * count, MOST_MOVES)
            left, gone = budget.left(), budget.clock() - began
            progress = gone / (gone + left) if left > 0 else 1.0
        return state


@dataclass(frozen=True, slots=True)
class Ground:
    """What does not change during the search."""

    order: Ints  # jobs by falling merit
    merit: Floats
    area: Floats
    price: Floats
    energy: Floats
    block_profiles: tuple[Ints, Ints]


def _ground(state: SolverState, budget: SolveBudget) -> Ground:
    presolved = state.presolved
    zero = np.zeros(presolved.problem.capacity.shape)
    price = state.price if state.price is not None else zero
    merit, area = merits(presolved, evaluate(presolved, price, budget), profile_prices(presolved, price))
    pairs = np.unique(np.stack((presolved.arrays.option_block, presolved.arrays.option_profile)), axis=1)
    pointers = np.searchsorted(pairs[0], np.arange(presolved.blocks + 1)).astype(np.int64)
    profiles = (pointers, np.ascontiguousarray(pairs[1]))
    return Ground(np.argsort(-merit, kind="stable"), merit, area, price, profile_prices(presolved, zero), profiles)


def one_round(  # noqa: PLR0917
    state: SolverState, budget: SolveBudget, random: np.random.Generator, ground: Ground, count: int, heat: float
) -> SolverState:
    """`count` moves per thread on disjoint parts of the halls, from this state's schedule to a neighbouring one."""
    presolved = state.presolved
    problem = presolved.problem
    option, start = state.schedule.option.copy(), state.schedule.start.copy()
    free = problem.capacity - usage_of(problem, state.schedule)
    workers = max(1, min(budget.workers, presolved.blocks))
    part_of_block = random.permutation(np.arange(presolved.blocks) % workers)
    part_of_job = _parts(presolved, state.schedule, part_of_block, random)
    seeds = random.integers(0, 1 << 31, workers)
    shared = presolved.resource_block < 0
    room = np.maximum(1.0, problem.capacity)

    def work(worker: int) -> None:
        mine = free.copy()
        mine[shared] //= workers
        blocks = np.flatnonzero(part_of_block == worker)
        members = ground.order[part_of_job[ground.order] == worker]
        if len(members) == 0 or len(blocks) == 0:
            return
        fixed = (ground.merit, ground.area, ground.block_profiles, ground.price, ground.energy, room)
        moves.search(presolved.arrays, seeds[worker], count, blocks, members, *fixed, mine, option, start, heat, *SIZES)

    list(budget.pool.map(work, range(workers)))
    return replace(state, schedule=Schedule(option, start), value=value_of(presolved, option, start))


def _parts(presolved: PresolvedProblem, schedule: Schedule, part_of_block: Ints, random: np.random.Generator) -> Ints:
    """Thread of every job: that of its hall when it runs, that of a random one of its halls when it waits."""
    arrays = presolved.arrays
    counts = np.diff(arrays.job_options)
    pick = arrays.job_options[:-1] + (random.random(len(counts)) * counts).astype(np.int64)
    shown = np.where(schedule.option >= 0, schedule.option, np.minimum(pick, len(arrays.option_block) - 1))
    result: Ints = np.where(counts > 0, part_of_block[arrays.option_block[shown]], -1)
    return result
