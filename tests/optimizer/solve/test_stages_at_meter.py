"""Every stage keeps the true curves of random sites with strong fans, chillers and losses, and counts value exactly."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan, prepare_site
from powerhall_optimizer.problem.arrays import Problem, Schedule
from powerhall_optimizer.problem.schedule_check import verify_schedule
from powerhall_optimizer.solve.annealing import Annealing
from powerhall_optimizer.solve.cp_sat_exact import CpSatExact
from powerhall_optimizer.solve.cp_sat_windows import CpSatWindows
from powerhall_optimizer.solve.neighbourhood_search import NeighbourhoodSearch
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.price_greedy import PriceGreedy
from powerhall_optimizer.solve.prices import Prices
from powerhall_optimizer.solve.repair import Repair
from powerhall_optimizer.solve.stage import SolveBudget, SolverState
from powerhall_optimizer.verify.plan import verify_plan
from rigs.exact_site import small_site

SLOTS = 12
replace = msgspec.structs.replace


def crowded_site(seed: int) -> Snapshot:
    """A small site over more slots, with more jobs than it can run: the limit at the meter is reached."""
    draw = random.Random(seed)
    s = small_site(draw)
    jobs = tuple(
        replace(job, job_id=f"{job.job_id}.{copy}", duration_s=job.duration_s * draw.uniform(0.5, 3))
        for job in s.jobs
        for copy in range(3)
    )
    rows = {name: (getattr(s, name) * SLOTS)[:SLOTS] for name in ("dry_bulb_c", "wet_bulb_c", "price_per_mwh")}
    return replace(s, slots=SLOTS, jobs=jobs, **rows)


def problem_of(seed: int) -> Problem:
    try:
        return prepare_site(crowded_site(seed), RoundSettings(), Log(quiet=True)).built.problem
    except Rejected:
        pytest.skip("over its limits when idle")


@pytest.mark.parametrize("seed", range(6))
def test_every_stage_keeps_the_limit_at_the_meter_and_counts_exactly(seed: int) -> None:
    problem = problem_of(seed)
    stages = [
        ("repair", Repair(), 1),
        ("prices", Prices(), 60),
        ("greedy", PriceGreedy(tries=6), 6),
        ("anneal", Annealing(), 1000),
        ("search", NeighbourhoodSearch(first_moves=50), 20),
        ("windows", CpSatWindows(jobs=10), 3),
        ("exact", CpSatExact(), 1),
    ]
    with ThreadPoolExecutor(2) as pool:
        state = SolverState(presolve(problem), Schedule.empty(problem.jobs), int(problem.job_wait_value.sum()))
        empty = state
        for name, stage, steps in stages:
            budget = SolveBudget(time.monotonic() + 60, lambda: False, pool, 2, seed, iterations=steps)
            state = stage.run(state, budget)
            alone = stage.run(empty, budget) if name in {"anneal", "exact"} else state
            for found in (state, alone):
                report = verify_schedule(problem, found.schedule)
                assert [str(v) for v in report.violations] == [], name
                assert report.value == found.value, name
            assert state.value <= state.bound


@pytest.mark.parametrize("seed", range(6))
def test_a_crowded_site_has_a_plan_from_the_solver(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of it is refused: solver, placement and checker agree on the true curves."""
    snapshot = crowded_site(seed)
    try:
        plan = make_plan(snapshot, RoundSettings(), 0.7, created_s=0, log=Log(quiet=True))
    except Rejected:
        pytest.skip("over its limits when idle")
    assert verify_plan(plan) == []
    assert plan.status != "fallback"
    log = capsys.readouterr().err
    assert "refused" not in log
    assert "failed" not in log
