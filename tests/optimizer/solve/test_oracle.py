"""Small instances solved exactly: the bound never falls below the optimum, the plan never breaks a limit."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powerhall_optimizer.problem.arrays import NO_DEADLINE, Problem, Schedule
from powerhall_optimizer.problem.builder import ProblemBuilder
from powerhall_optimizer.problem.schedule_check import exact_bound, verify_schedule
from powerhall_optimizer.solve.cp_sat_exact import CpSatExact
from powerhall_optimizer.solve.cp_sat_model import decisions_of, solve_decisions
from powerhall_optimizer.solve.cp_sat_windows import CpSatWindows
from powerhall_optimizer.solve.neighbourhood_search import NeighbourhoodSearch
from powerhall_optimizer.solve.pipeline import solve
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.price_greedy import PriceGreedy
from powerhall_optimizer.solve.prices import Prices
from powerhall_optimizer.solve.repair import Repair
from powerhall_optimizer.solve.stage import SolveBudget, SolverState, Stage, certificate_of


def small_problem(seed: int, jobs: int, slots: int) -> Problem:
    """Two halls with nodes and watts each, one site limit, every term of the value in use."""
    rng = np.random.default_rng(seed)
    builder = ProblemBuilder(slots=slots)
    halls = [
        (
            builder.resource(f"h{h}.nodes", int(rng.integers(3, 9))),
            builder.resource(f"h{h}.w", int(rng.integers(20, 80))),
        )
        for h in range(2)
    ]
    site = builder.resource("site.w", rng.integers(10, 120, slots))
    tariff = builder.tariff(rng.integers(0, 5, slots))
    for number in range(jobs):
        nodes = int(rng.integers(1, 7))
        deadline = int(rng.integers(2, slots)) if rng.random() < 0.4 else NO_DEADLINE
        job = builder.job(
            f"j{number}",
            wait_value=-500 if rng.random() < 0.1 else 0,
            delay_cost=int(rng.integers(0, 4)),
            deadline=deadline,
            late_cost=int(rng.integers(0, 9)),
            late_fine=int(rng.integers(0, 60)),
            planned_start=int(rng.integers(-1, slots)),
            shift_cost=int(rng.integers(0, 3)),
        )
        work, release = int(rng.integers(1, slots)), int(rng.integers(0, max(1, slots // 2)))
        for hall in [h for h in range(2) if rng.random() < 0.8]:
            for mode, (power, slow) in enumerate(((10, 1.0), (7, 1.3))):
                builder.option(
                    job,
                    (f"h{hall}", f"m{mode}"),
                    duration=max(1, round(work * slow)),
                    uses={halls[hall][0]: nodes, halls[hall][1]: nodes * power, site: nodes * (power + hall)},
                    rate=int(rng.integers(5, 60)) * nodes,
                    bonus=int(rng.integers(-20, 5)),
                    earliest=release,
                    latest=slots - 1,
                    tariff=tariff,
                    energy=nodes * power // 5,
                )
    return builder.build()


def budget_of(pool: ThreadPoolExecutor, iterations: int | None = 40) -> SolveBudget:
    return SolveBudget(time.monotonic() + 60, lambda: False, pool, 2, 7, iterations=iterations)


def optimum(problem: Problem, pool: ThreadPoolExecutor) -> int:
    budget = SolveBudget(time.monotonic() + 60, lambda: False, pool, 1, 0)
    decisions = [d for job in range(problem.jobs) for d in decisions_of(problem, job)]
    waiting = Schedule.empty(problem.jobs)
    answer = solve_decisions(problem, range(problem.jobs), decisions, problem.capacity, waiting, budget)
    assert answer is not None
    assert answer.optimal
    return answer.value


@settings(max_examples=150, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 1 << 30), jobs=st.integers(1, 14), slots=st.integers(4, 14))
def test_bound_optimum_and_plan_stand_in_order(seed: int, jobs: int, slots: int) -> None:
    problem = small_problem(seed, jobs, slots)
    with ThreadPoolExecutor(2) as pool:
        best = optimum(problem, pool)
        presolved = presolve(problem)
        state = SolverState(presolved, Schedule.empty(jobs), int(problem.job_wait_value.sum()))
        stages: list[Stage] = [Repair(), Prices(), PriceGreedy(tries=6), NeighbourhoodSearch(first_moves=20)]
        for stage in stages:
            state = stage.run(state, budget_of(pool, 30))
            report = verify_schedule(problem, state.schedule)
            assert report.ok, [str(v) for v in report.violations]
            assert report.value == state.value <= best <= state.bound
        assert state.price is not None
        assert best <= exact_bound(problem, certificate_of(problem, state.price)) <= state.bound + 1


@pytest.mark.parametrize("seed", range(6))
def test_the_pipeline_solves_small_problems_to_the_optimum(seed: int) -> None:
    problem = small_problem(seed, 12, 12)
    with ThreadPoolExecutor(2) as pool:
        best = optimum(problem, pool)
    result = solve(problem, seconds=20.0)
    report = verify_schedule(problem, result.schedule, result.certificate)
    assert report.ok
    assert report.value == result.value == best
    assert result.bound >= best
    assert report.bound is not None
    assert report.bound >= best
    assert result.gap < 1e-2


@pytest.mark.parametrize("stage", [CpSatWindows(jobs=10), CpSatExact()])
def test_cp_sat_stages_never_lose_value(stage: Stage) -> None:
    problem = small_problem(5, 30, 12)
    with ThreadPoolExecutor(2) as pool:
        state = SolverState(presolve(problem), Schedule.empty(30), int(problem.job_wait_value.sum()))
        state = PriceGreedy(tries=1).run(Prices().run(state, budget_of(pool)), budget_of(pool))
        after = stage.run(state, budget_of(pool, 3))
        assert verify_schedule(problem, after.schedule).value == after.value >= state.value
        assert verify_schedule(problem, after.schedule).ok


def test_more_orders_of_the_greedy_are_never_worse_and_reach_more_value() -> None:
    gained = 0
    for seed in range(4):
        problem = small_problem(seed, 60, 24)
        with ThreadPoolExecutor(2) as pool:
            state = SolverState(presolve(problem), Schedule.empty(60), int(problem.job_wait_value.sum()))
            state = Prices(rounds=100).run(state, budget_of(pool))
            one, many = (PriceGreedy(tries=tries).run(state, budget_of(pool)) for tries in (1, 15))
        assert verify_schedule(problem, many.schedule).ok
        assert many.value >= one.value
        gained += many.value > one.value
    assert gained > 0


def test_the_same_seed_and_iterations_give_the_same_plan() -> None:
    problem = small_problem(11, 40, 24)
    first, second = (solve(problem, seed=3, iterations=20, seconds=600.0) for _ in range(2))
    assert first.schedule.option.tolist() == second.schedule.option.tolist()
    assert first.schedule.start.tolist() == second.schedule.start.tolist()
    assert (first.certificate.price == second.certificate.price).all()


def test_a_stop_flag_still_returns_a_verified_plan() -> None:
    problem = small_problem(2, 40, 24)
    result = solve(problem, seconds=30.0, stop=lambda: True)
    assert verify_schedule(problem, result.schedule, result.certificate).ok
    assert len(result.stages) == 1


def test_warm_prices_and_a_broken_previous_plan_are_repaired() -> None:
    problem = small_problem(8, 40, 24)
    first = solve(problem, seconds=2.0)
    wrong = Schedule(first.schedule.option.copy(), first.schedule.start + 3)
    again = solve(problem, seconds=2.0, warm=first.certificate, previous=wrong)
    assert verify_schedule(problem, again.schedule, again.certificate).ok
    assert again.bound >= again.value


@pytest.mark.parametrize("jobs", [0, 3])
def test_problems_without_options_or_jobs_have_an_empty_plan(jobs: int) -> None:
    builder = ProblemBuilder(slots=4)
    builder.resource("nodes", 3)
    for number in range(jobs):
        builder.job(f"j{number}", wait_value=-5)
    result = solve(builder.build(), seconds=1.0)
    assert result.value == -5 * jobs
    assert result.bound - result.value <= 2
