"""The kernels' results are pinned: a change that is meant for readers only must not change a plan.

Prices are random multiples of 2**-10, the same for no two slots, so that neither the processor's vector width nor the
last bit of a logarithm decides anything. Where a change is meant to plan differently, replace the expected values.
"""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from powerhall_optimizer.problem.arrays import Problem, Schedule
from powerhall_optimizer.problem.schedule_check import check_schedule
from powerhall_optimizer.problem.synthetic import generate
from powerhall_optimizer.solve.neighbourhood_search import NeighbourhoodSearch
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.price_greedy import PriceGreedy
from powerhall_optimizer.solve.prices import evaluate
from powerhall_optimizer.solve.repair import Repair
from powerhall_optimizer.solve.stage import SolveBudget, SolverState, Stage

STAGES: tuple[tuple[str, Stage, int], ...] = (
    ("repair", Repair(), 1),
    ("greedy", PriceGreedy(tries=5), 1),
    ("search", NeighbourhoodSearch(first_moves=100), 4),
)
EXPECTED = (
    (
        "open",
        80,
        36,
        1,
        {
            "pricing": "8f0e0126f929",
            "repair": (29268962236, "f6d42b99f73c"),
            "greedy": (30533009693, "a46eecb3a04f"),
            "search": (32752635513, "8ee26c35fa80"),
        },
    ),
    (
        "open",
        300,
        48,
        2,
        {
            "pricing": "f0185c15ef9c",
            "repair": (38186100388, "df5c9caedc80"),
            "greedy": (42922651510, "9bd67b6a5df5"),
            "search": (44034450993, "9c781116b74d"),
        },
    ),
    (
        "pinned",
        200,
        36,
        1,
        {
            "pricing": "ddd4f5ab5011",
            "repair": (17341388258, "6d2bf4e35989"),
            "greedy": (17341388258, "6d2bf4e35989"),
            "search": (17683936485, "335e1be5b48f"),
        },
    ),
    (
        "pinned",
        360,
        72,
        2,
        {
            "pricing": "6fc5daf59e21",
            "repair": (35601211563, "d7a296b0212f"),
            "greedy": (35601211563, "d7a296b0212f"),
            "search": (36452744143, "fe3d2da0f945"),
        },
    ),
)
"""Family, jobs, slots, seed; hash of the prices' answer, then value and hash of the schedule after each stage."""


def digest(*arrays: np.ndarray) -> str:
    """Hash of the arrays' bytes."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:12]


def some_price(problem: Problem, seed: int) -> np.ndarray:
    """Prices [R, T] that make about every second job worth running: per node, and per W."""
    of_node = np.array([name.endswith("nodes") for name in problem.resource_names])[:, None]
    share = np.random.default_rng(seed).uniform(0.2, 1.0, problem.capacity.shape)
    return np.rint(np.where(of_node, 3000.0, 0.3) * share * 1024) / 1024


def results_of(family: str, jobs: int, slots: int, seed: int) -> dict[str, object]:
    """Hash of what pricing finds, and value and hash of the schedule after each stage, from a fixed amount of work."""
    problem = generate(family, jobs, slots, seed)
    presolved = presolve(problem)
    price = some_price(problem, seed)
    state = SolverState(presolved, Schedule.empty(problem.jobs), int(problem.job_wait_value.sum()), price)
    found: dict[str, object] = {}
    with ThreadPoolExecutor(1) as pool:
        budget = SolveBudget(time.monotonic() + 600, lambda: False, pool, 1, seed, iterations=1)
        at = evaluate(presolved, price, budget)
        found["pricing"] = digest(at.choice, at.start, at.usage)
        for name, stage, iterations in STAGES:
            budget = SolveBudget(time.monotonic() + 600, lambda: False, pool, 1, seed, iterations=iterations)
            state = stage.run(state, budget)
            found[name] = (state.value, digest(state.schedule.option, state.schedule.start))
    assert not list(check_schedule(problem, state.schedule))
    return found


@pytest.mark.parametrize(("family", "jobs", "slots", "seed", "expected"), EXPECTED)
def test_a_seed_and_a_fixed_amount_of_work_give_the_same_schedule_as_ever(family, jobs, slots, seed, expected) -> None:
    assert results_of(family, jobs, slots, seed) == expected
