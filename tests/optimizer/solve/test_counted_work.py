"""Counted work: the same inputs give the same schedule however busy the machine, and a deadline that cuts is told."""

import itertools
import math
import multiprocessing
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import prepare_site
from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.problem.meter import no_curves
from powerhall_optimizer.problem.schedule_check import check_schedule
from powerhall_optimizer.problem.synthetic import generate
from powerhall_optimizer.solve.annealing import Annealing
from powerhall_optimizer.solve.child_process import guarded
from powerhall_optimizer.solve.pipeline import solve
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.stage import SolveBudget, SolverState
from powerhall_optimizer.solve.work import Costs
from rigs.exact_site import small_site


def _spin() -> None:
    for _ in itertools.count():
        pass


def _outcome(problem, work_s):
    result = solve(problem, seconds=600.0, work_s=work_s, seed=5)
    return result.schedule.option.tolist(), result.schedule.start.tolist(), result.bound, result.cut, result.stages


@pytest.mark.parametrize(("family", "jobs", "slots"), [("open", 40, 48), ("pinned", 300, 96)])
def test_a_busy_machine_gives_the_same_schedule(family, jobs, slots):
    problem = generate(family, jobs, slots, 2)
    alone = _outcome(problem, 0.5)
    load = [multiprocessing.get_context("fork").Process(target=_spin, daemon=True) for _ in range(4)]
    for process in load:
        process.start()
    try:
        busy = _outcome(problem, 0.5)
    finally:
        for process in load:
            process.kill()
            process.join()
    assert alone[3] == busy[3] == (), "no deadline came near"
    assert alone[:3] == busy[:3]
    assert [(s.name, s.work) for s in alone[4]] == [(s.name, s.work) for s in busy[4]]


def test_a_deadline_that_cuts_is_told_and_kept():
    problem = generate("pinned", 1_000, 96, 2)
    began = time.monotonic()
    result = solve(problem, seconds=2.0, work_s=500.0)
    assert result.cut
    assert time.monotonic() - began < 20.0, "rounds are short, on a busy machine as well"
    assert not list(check_schedule(problem, result.schedule))


@pytest.mark.parametrize("seed", range(6))
def test_annealing_gives_feasible_schedules_of_the_value_that_it_says(seed):
    problem = generate(("open", "pinned")[seed % 2], 40 + 10 * seed, 48, seed)
    presolved = presolve(problem)
    first = solve(problem, seconds=60.0, iterations=1, seed=seed)
    state = SolverState(presolved, first.schedule, first.value)
    with ThreadPoolExecutor(2) as pool:
        budget = SolveBudget(time.monotonic() + 60.0, lambda: False, pool, 2, seed, iterations=400)
        found = Annealing().run(state, budget)
    assert not list(check_schedule(problem, found.schedule))
    assert found.schedule.value(problem) == found.value >= first.value


def test_annealing_from_nothing_places_jobs():
    problem = generate("open", 30, 48, 1)
    waiting = Schedule.empty(problem.jobs)
    state = SolverState(presolve(problem), waiting, waiting.value(problem))
    with ThreadPoolExecutor(2) as pool:
        budget = SolveBudget(time.monotonic() + 60.0, lambda: False, pool, 2, 1, iterations=300)
        found = Annealing().run(state, budget)
    assert (found.schedule.option >= 0).sum() > 10
    assert not list(check_schedule(problem, found.schedule))


def test_a_call_that_hangs_leaves_what_it_sent_last():
    def call(send):
        send(1)
        send(2)
        time.sleep(60.0)
        return 3

    began = time.monotonic()
    assert guarded(call, deadline_s=began + 1.0, grace_s=0.2, stop=lambda: False) == 2
    assert time.monotonic() - began < 10.0


def test_a_call_that_fails_late_leaves_what_it_sent_last():
    def call(send):
        send(np.arange(3))
        raise ValueError("late fault")

    found = guarded(call, deadline_s=time.monotonic() + 60.0, grace_s=0.2, stop=lambda: False)
    assert found.tolist() == [0, 1, 2]


def test_limits_at_meters_are_counted_as_work():
    """Pricing halls of several node types, and reading curves on every booking, makes each step dearer."""
    curved = mixed = None
    for seed in range(40):
        problem = prepare_site(small_site(random.Random(seed)), RoundSettings(), Log(quiet=True)).built.problem
        pools = np.diff(problem.curves.first)
        if len(pools) and (pools > 1).any():
            mixed = problem
        elif len(pools):
            curved = problem
    assert curved is not None
    assert mixed is not None
    for problem in (curved, mixed):
        bare = replace(problem, curves=no_curves(problem.resources, problem.slots))
        with_curves, without = Costs.of(presolve(problem)), Costs.of(presolve(bare))
        for stage in ("price_round", "greedy", "move", "decode"):
            assert getattr(with_curves, stage) > getattr(without, stage)


def test_a_deadline_before_the_first_prices_leaves_a_bound():
    problem = generate("open", 60, 48, 3)
    late = solve(problem, seconds=1e-6, work_s=1.0)
    longer = solve(problem, seconds=60.0, work_s=1.0)
    assert "prices" in late.cut
    assert all(math.isfinite(stage.bound) for stage in late.stages)
    assert late.bound <= longer.bound + 0.15 * abs(longer.bound), "prices come before any deadline"
    stopped = solve(problem, seconds=1e-6, stop=lambda: True)
    assert math.isfinite(stopped.bound)
    assert stopped.bound >= longer.value
