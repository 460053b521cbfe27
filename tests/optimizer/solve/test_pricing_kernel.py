"""Pricing of jobs: every gain against plain arithmetic over all starts, on vectors, with ties at the earliest start."""

import numpy as np
import pytest

from powerhall_optimizer.problem.arrays import Problem
from powerhall_optimizer.problem.synthetic import generate
from powerhall_optimizer.solve.kernels import pricing
from powerhall_optimizer.solve.kernels.kernel_arrays import Columns, PricedDecisions
from powerhall_optimizer.solve.presolve import presolve, profile_prices


def priced(problem: Problem, price: np.ndarray) -> PricedDecisions:
    found = presolve(problem)
    jobs, columns = problem.jobs, found.column_option
    result = PricedDecisions(
        np.zeros(jobs),
        np.zeros(jobs, np.int64),
        np.zeros(jobs, np.int64),
        np.zeros((problem.resources, problem.slots + 1)),
        np.zeros(len(columns)),
    )
    prefix = profile_prices(found, price)
    pricing.price_jobs(found.arrays, 0, jobs, Columns(found.job_columns, columns), prefix, result)
    return result


def by_hand(problem: Problem, job: int, option: int, price: np.ndarray) -> list[float]:
    """Value less price of an option at each of its starts."""
    values = []
    for number, value in enumerate(problem.values(job, option).tolist()):
        start = int(problem.option_earliest[option]) + number
        end = min(problem.slots, start + int(problem.option_duration[option]))
        used = sum(amount * price[row, start:end].sum() for row, amount in problem.uses_of(option))
        values.append(value - float(used))
    return values


@pytest.mark.parametrize("seed", range(3))
def test_each_job_takes_the_best_decision_of_all(seed: int) -> None:
    problem = generate("open" if seed else "pinned", 60, 96, seed)
    draw = np.random.default_rng(seed)
    group = presolve(problem).resource_group  # columns stand for options that are equal under common prices
    size = (int(group.max()) + 1, problem.slots)
    price = (draw.random(size) * draw.choice([0.0, 1.0, 30.0], size))[group]
    found = priced(problem, price)
    for job in range(problem.jobs):
        every = [(max(by_hand(problem, job, option, price)), option) for option in problem.options_of(job)]
        best = max([float(problem.job_wait_value[job]), *(value for value, _ in every)])
        assert found.gain[job] == pytest.approx(best, rel=1e-9)
        if found.option[job] >= 0:
            values = by_hand(problem, job, int(found.option[job]), price)
            start = int(found.start[job] - problem.option_earliest[found.option[job]])
            assert values[start] == pytest.approx(best, rel=1e-9)


def test_equal_prices_push_no_work_into_the_future() -> None:
    problem = generate("open", 60, 96, 1)
    problem.job_delay_cost[:] = 0
    found = priced(problem, np.zeros(problem.capacity.shape))
    for job in np.flatnonzero(found.option >= 0).tolist():
        option = int(found.option[job])
        values = by_hand(problem, job, option, np.zeros(problem.capacity.shape))
        assert int(found.start[job] - problem.option_earliest[option]) == int(np.argmax(values))


def test_prices_of_a_few_dear_hours_are_found_in_few_steps() -> None:
    """A limit that falls for a short time costs many times what is typical: steps grow with the price."""
    import time
    from concurrent.futures import ThreadPoolExecutor

    from powerhall_optimizer.problem.arrays import Schedule
    from powerhall_optimizer.solve.prices import Prices
    from powerhall_optimizer.solve.stage import SolveBudget, SolverState

    problem = generate("open", 200, 96, 3)
    problem.capacity[:, 40:46] //= 8
    bounds = []
    with ThreadPoolExecutor(2) as pool:
        for steps in (150, 1500):
            budget = SolveBudget(time.monotonic() + 600, lambda: False, pool, 2, 1, iterations=steps)
            state = SolverState(presolve(problem), Schedule.empty(problem.jobs), int(problem.job_wait_value.sum()))
            bounds.append(Prices().run(state, budget).bound)
    assert bounds[0] <= bounds[1] * 1.01
