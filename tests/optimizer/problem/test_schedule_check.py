"""The checker of schedules and bounds: each kind of broken limit is caught, and sums are exact."""

import numpy as np
import pytest

from powerhall_optimizer.problem.arrays import Cut, PriceCertificate, Problem, Schedule
from powerhall_optimizer.problem.builder import ProblemBuilder
from powerhall_optimizer.problem.schedule_check import check_schedule, exact_bound, exact_value, verify_schedule

LIMITS = ("hall1.nodes", "hall1.it_w", "hall1.heat_w", "site.power_w")


@pytest.fixture
def problem() -> Problem:
    """Two jobs that fit one after the other in every resource, never side by side in any."""
    builder = ProblemBuilder(slots=6)
    resources = [builder.resource(name, capacity) for name, capacity in zip(LIMITS, (4, 40, 36, 50), strict=True)]
    tariff = builder.tariff([1, 2, 3, 4, 5, 6])
    for name, deadline in (("a", 3), ("b", 4)):
        job = builder.job(
            name, deadline=deadline, late_cost=7, late_fine=11, delay_cost=2, planned_start=1, shift_cost=3
        )
        for mode, amounts in (("full", (3, 30, 27, 33)), ("low", (1, 10, 9, 11))):
            uses = dict(zip(resources, amounts, strict=True))
            builder.option(job, ("hall1", mode), duration=2, uses=uses, rate=100, bonus=-5, tariff=tariff, energy=2)
    return builder.build()


def plan(option: list[int], start: list[int]) -> Schedule:
    return Schedule(np.array(option, np.int64), np.array(start, np.int64))


def test_a_plan_within_every_limit_has_no_violation(problem: Problem) -> None:
    assert not list(check_schedule(problem, plan([0, 2], [0, 2])))


@pytest.mark.parametrize("resource", range(len(LIMITS)), ids=LIMITS)
def test_each_resource_limit_is_caught_alone(problem: Problem, resource: int) -> None:
    capacity = problem.capacity * 10
    capacity[resource, 3] = problem.uses_of(2)[resource][1] - 1
    from dataclasses import replace

    violations = list(check_schedule(replace(problem, capacity=capacity), plan([0, 2], [0, 2])))
    assert [(v.constraint, v.excess) for v in violations] == [("capacity", 1)]
    assert f"{LIMITS[resource]} in slot 3" in str(violations[0])


def test_two_jobs_side_by_side_break_every_capacity(problem: Problem) -> None:
    found = {str(v).split()[1] for v in check_schedule(problem, plan([0, 2], [0, 1]))}
    assert found == set(LIMITS)


def test_an_option_of_another_job_is_caught(problem: Problem) -> None:
    assert [v.constraint for v in check_schedule(problem, plan([2, -1], [0, -1]))] == ["option"]


def test_an_option_that_does_not_exist_is_caught(problem: Problem) -> None:
    assert "option" in [v.constraint for v in check_schedule(problem, plan([99, -1], [0, -1]))]


@pytest.mark.parametrize(("start", "excess"), [(-2, 2), (5, 1)])
def test_a_start_outside_its_window_is_caught(problem: Problem, start: int, excess: int) -> None:
    violations = list(check_schedule(problem, plan([0, -1], [start, -1])))
    assert [(v.constraint, v.excess) for v in violations] == [("window", excess)]


def test_a_schedule_of_the_wrong_length_or_type_is_caught(problem: Problem) -> None:
    assert [v.constraint for v in check_schedule(problem, plan([0], [0]))] == ["shape", "shape"]
    floats = Schedule(np.zeros(2), np.zeros(2))  # type: ignore[arg-type]
    assert {v.constraint for v in check_schedule(problem, floats)} == {"shape"}


def test_the_value_follows_every_term_of_the_formula(problem: Problem) -> None:
    # start 3, end 5, deadline 3: bonus, rate x 2, delay 2 x 5, late 2 slots and fine, shift 2 slots, energy 2 x (4 + 5)
    expected = -5 + 200 - 10 - (7 * 2 + 11) - 3 * 2 - 2 * 9
    assert exact_value(problem, plan([0, -1], [3, -1])) == expected == problem.value(0, 0, 3)


def test_work_behind_the_horizon_neither_counts_nor_costs() -> None:
    builder = ProblemBuilder(slots=3)
    nodes, tariff = builder.resource("n", 1), builder.tariff(1)
    job = builder.job("long")
    builder.option(job, ("h", "m"), duration=9, uses={nodes: 1}, rate=10, latest=2, tariff=tariff, energy=1)
    problem = builder.build()
    assert exact_value(problem, plan([0], [1])) == 2 * 10 - 2
    assert not list(check_schedule(problem, plan([0], [2])))


def test_the_bound_of_zero_prices_is_the_sum_of_the_best_values(problem: Problem) -> None:
    free = PriceCertificate(np.zeros_like(problem.capacity), 5)
    best = sum(max(int(problem.values(job, o).max()) for o in problem.options_of(job)) for job in range(2))
    assert exact_bound(problem, free) == best


def test_the_bound_is_the_formula_by_brute_force(problem: Problem) -> None:
    rng = np.random.default_rng(4)
    price, cuts = rng.integers(0, 90, problem.capacity.shape), (Cut(1, 10), Cut(0, 3))
    cut_price = rng.integers(0, 90, (2, problem.slots))
    total = int((price * problem.capacity).sum())
    total += int((cut_price[0] * (problem.capacity[1] // 10) + cut_price[1] * (problem.capacity[0] // 3)).sum())
    for job in range(problem.jobs):
        gains = [0]
        for option in problem.options_of(job):
            for start in range(int(problem.option_earliest[option]), int(problem.option_latest[option]) + 1):
                run = slice(start, start + 2)
                paid = sum(amount * int(price[r, run].sum()) for r, amount in problem.uses_of(option))
                uses = dict(problem.uses_of(option))
                paid += uses[1] // 10 * int(cut_price[0, run].sum()) + uses[0] // 3 * int(cut_price[1, run].sum())
                gains.append(8 * problem.value(job, option, start) - paid)
        total += max(gains)
    assert exact_bound(problem, PriceCertificate(price, 3, cuts, cut_price)) == total // 8


def test_prices_beyond_64_bits_are_still_summed_exactly(problem: Problem) -> None:
    huge = PriceCertificate(np.full(problem.capacity.shape, (1 << 61) - 1, np.int64), 0)
    assert exact_bound(problem, huge) == ((1 << 61) - 1) * int(problem.capacity.sum())


@pytest.mark.parametrize("price", [np.full((4, 6), -1), np.zeros((3, 6))])
def test_negative_prices_and_wrong_shapes_prove_nothing(problem: Problem, price: np.ndarray) -> None:
    with pytest.raises(ValueError, match="certificate"):
        exact_bound(problem, PriceCertificate(price.astype(np.int64), 0))


def test_a_negative_cut_price_proves_nothing(problem: Problem) -> None:
    certificate = PriceCertificate(np.zeros_like(problem.capacity), 0, (Cut(0, 2),), np.full((1, 6), -1, np.int64))
    with pytest.raises(ValueError, match="cut prices"):
        exact_bound(problem, certificate)


def test_the_report_refuses_a_bound_below_the_value(problem: Problem) -> None:
    good = verify_schedule(problem, plan([0, 2], [0, 2]), PriceCertificate(np.zeros_like(problem.capacity), 0))
    assert good.ok
    assert good.gap is not None
    assert not verify_schedule(problem, plan([0, 2], [0, 1])).ok
