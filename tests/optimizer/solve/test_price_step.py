"""The step of the prices: it follows shortage and free capacity, in units of each resource's typical value."""

import numpy as np

from powerhall_optimizer.problem.arrays import Problem
from powerhall_optimizer.problem.builder import ProblemBuilder
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.price_step import PriceStep, typical_value


def problem_of(jobs: int, *, unused: bool = False) -> Problem:
    """Each option uses four resources in the same order, 1, 10, 100 and 1000 units of them."""
    builder = ProblemBuilder(slots=4)
    resources = [builder.resource(name, 50 * amount) for name, amount in (("a", 1), ("b", 10), ("c", 100), ("d", 1000))]
    if unused:
        builder.resource("nobody", 7)
    for number in range(jobs):
        job = builder.job(f"j{number}")
        uses = {resource: 10**power for power, resource in enumerate(resources)}
        builder.option(job, ("h", "full"), duration=2, uses=uses, rate=1000)
    return builder.build()


def test_a_price_rises_where_capacity_lacks_and_falls_to_zero_where_it_is_free():
    problem = problem_of(3)
    step = PriceStep(presolve(problem), None, 0.1)
    free = problem.capacity.astype(float)
    free[0] = -free[0]
    step.move(free, 0.0)
    price = step.price()
    assert (price[0] > 0).all()
    assert (price[1:] == 0).all()
    for _ in range(200):
        step.move(problem.capacity.astype(float), 0.5)
    assert (step.price() == 0).all()


def test_the_last_step_moves_nothing():
    problem = problem_of(3)
    step = PriceStep(presolve(problem), np.full(problem.capacity.shape, 2.0), 0.1)
    step.move(-problem.capacity.astype(float), 1.0)
    assert np.allclose(step.price(), 2.0)


def test_a_price_left_over_of_a_resource_that_nobody_uses_falls():
    problem = problem_of(3, unused=True)
    step = PriceStep(presolve(problem), np.full(problem.capacity.shape, 2.0), 0.1)
    step.move(problem.capacity.astype(float), 0.0)
    assert (step.price() < 2.0).all()


def test_the_typical_worth_of_many_options_meets_every_resource():
    """Every n-th of 240,000 entries would meet one resource of the four only."""
    presolved = presolve(problem_of(60_000))
    worth = typical_value(presolved)[presolved.resource_group][:, 0]
    assert np.allclose(worth, [1000.0, 100.0, 10.0, 1.0])
