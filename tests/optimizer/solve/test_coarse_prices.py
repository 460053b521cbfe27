"""Prices of long slots are a start for those of the problem, and prove a bound of it."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from powerhall_optimizer.problem.arrays import Problem, Schedule
from powerhall_optimizer.problem.builder import ProblemBuilder
from powerhall_optimizer.problem.schedule_check import exact_bound
from powerhall_optimizer.solve.coarse_prices import CoarsePrices
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.prices import Prices
from powerhall_optimizer.solve.stage import SolveBudget, SolverState, certificate_of

SLOTS = 50  # no multiple of the long slots


def queue(seed: int) -> Problem:
    """A hall with a limit that falls for a while, and more work than it can do."""
    rng = np.random.default_rng(seed)
    builder = ProblemBuilder(slots=SLOTS)
    watts = builder.resource("hall.w", np.where(np.arange(SLOTS) // 10 == 2, 500, 900))
    gpus = builder.resource("hall.gpus", 100)
    for number in range(60):
        size, length = int(rng.integers(1, 17)), int(rng.integers(3, 40))
        job = builder.job(f"j{number}", wait_value=0, delay_cost=int(rng.integers(0, 4)))
        for mode, (power, slow) in enumerate(((10, 1.0), (7, 1.2))):
            builder.option(
                job,
                ("hall", f"m{mode}"),
                duration=round(length * slow),
                uses={watts: size * power, gpus: size},
                rate=round(size * int(rng.integers(50, 90)) / slow),
                bonus=0,
                earliest=0,
                latest=SLOTS - 1,
                tariff=-1,
                energy=0,
            )
    return builder.build()


def begun(problem: Problem) -> SolverState:
    return SolverState(presolve(problem), Schedule.empty(problem.jobs), 0)


@pytest.mark.parametrize("seed", range(4))
def test_prices_of_long_slots_come_near_those_of_the_problem(seed: int) -> None:
    problem = queue(seed)
    with ThreadPoolExecutor(1) as pool:
        budget = SolveBudget(time.monotonic() + 60, lambda: False, pool, 1, 0, iterations=400)
        state = CoarsePrices().run(begun(problem), budget)
        best = Prices().run(begun(problem), budget)
        again = CoarsePrices().run(state, budget)
    assert state.price is not None
    assert exact_bound(problem, certificate_of(problem, state.price)) <= state.bound + 1
    free = exact_bound(problem, certificate_of(problem, np.zeros_like(state.price)))
    assert best.bound <= state.bound <= best.bound + 0.1 * (free - best.bound)
    assert again is state, "a state that has prices keeps them"
