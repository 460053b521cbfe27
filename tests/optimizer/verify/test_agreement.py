"""Checker and planner compute the same with separate code: capacities, options, values, storage, loads, bounds."""

import math
import random
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from powerhall.jobs import Job
from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.physics import plan_loads as planner_loads
from powerhall_optimizer.planning import plan_value
from powerhall_optimizer.problem.join_sites import join_problems
from powerhall_optimizer.problem.schedule_check import exact_value
from powerhall_optimizer.problem.site_problem import BuiltProblem, build_problem
from powerhall_optimizer.storage.model import build_storage_model
from powerhall_optimizer.verify import loads as checker_loads
from powerhall_optimizer.verify.bound import job_value
from powerhall_optimizer.verify.capacities import Capacities
from powerhall_optimizer.verify.options import SiteOptions, job_terms, run_terms, unit_usd
from powerhall_optimizer.verify.storage_terms import storage_terms
from powerhall_optimizer.verify.value import multi_site_value_and_bound, value_and_bound
from rigs.random_sites import random_jobs, random_multi_site_plan, random_plan, random_snapshot, with_planned

SEEDS = 120
MULTI_SITE_SEEDS = 40


def snapshot_of(seed: int) -> tuple[random.Random, Snapshot]:
    draw = random.Random(seed)
    return draw, with_planned(draw, [random_snapshot(draw)])[0]


def built_of(snapshot: Snapshot, stops: dict[str, int] | None = None) -> BuiltProblem:
    """The planner's problem; a site that is over its limits when idle is refused by both codes."""
    try:
        return build_problem(snapshot, stops=stops or {})
    except Rejected:
        with pytest.raises(Rejected):
            Capacities(snapshot)
        pytest.skip("over its limits when idle: both refuse it")


def some_plan(seed: int) -> Plan:
    draw, snapshot = snapshot_of(seed)
    built = built_of(snapshot)
    return random_plan(draw, snapshot, list(built.problem.resource_names))


def some_multi_site_plan(seed: int) -> MultiSitePlan:
    draw = random.Random(seed)
    slots = draw.choice([5, 24])
    snapshots = [
        random_snapshot(draw, name, slots=slots, jobs=0) for name in ("phx", "fra", "osl")[: draw.randint(2, 3)]
    ]
    jobs = random_jobs(draw, [s.site for s in snapshots], 14)
    first = snapshots[0]
    same = {"jobs": jobs, "slot_s": first.slot_s, "objective": first.objective}
    snapshots = with_planned(draw, [msgspec.structs.replace(s, **same) for s in snapshots])
    priced = [f"{s.site.name}:{name}" for s in snapshots for name in built_of(s).problem.resource_names]
    return random_multi_site_plan(draw, snapshots, priced)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_capacity_and_every_option_is_the_same(seed):
    _, snapshot = snapshot_of(seed)
    problem = built_of(snapshot).problem
    built = built_of(snapshot)
    capacities = Capacities(snapshot)
    assert capacities.amounts.keys() == set(problem.resource_names)
    for name, row in zip(problem.resource_names, problem.capacity, strict=True):
        if not name.endswith((".facility_w", ".meter_it")):  # the planner rounds down, the checker up
            assert (row <= capacities.amounts[name]).all()
            assert (row >= capacities.amounts[name] * (1 - 1e-9) - 30).all() or "_air_" in name or ".racks_w" in name
    unit = unit_usd(snapshot)
    assert unit == built.unit_usd
    options = SiteOptions(snapshot, capacities, unit)
    planned = {entry.job_id: entry for entry in snapshot.planned}
    paid = np.concatenate(([0], np.cumsum(options.tariff)))
    for number, job in enumerate(snapshot.jobs):
        last = planned.get(job.job_id)
        terms = job_terms(snapshot, job, unit, last, None)
        assert terms.wait == problem.job_wait_value[number]
        mine = {}
        for option in options.of(job) if terms.first <= terms.last else ():
            moved = options.is_moved(job, option, last)
            run = run_terms(snapshot, job, terms, option.speed, moved)
            start = np.arange(terms.first, min(terms.last, terms.deadline - run[0]) + 1)
            if not len(start):
                continue
            value, stop = job_value(terms, np.array(run), start, snapshot.slots)
            value = value - option.energy * (paid[stop] - paid[start])
            mine[option.hall, option.node_type, option.mode] = dict(option.uses), value.tolist()
        theirs = {}
        for o in problem.options_of(number):
            choice = built.choices[o]
            uses = {problem.resource_names[r]: amount for r, amount in problem.uses_of(o)}
            theirs[choice.hall, choice.node_type, choice.mode] = uses, problem.values(number, o).tolist()
        assert mine.keys() == theirs.keys()
        for place, (uses, values) in theirs.items():
            assert mine[place][1] == values
            assert all(amount <= uses[name] for name, amount in mine[place][0].items())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_store_is_the_same(seed):
    _, snapshot = snapshot_of(seed)
    built = built_of(snapshot)
    names = built.problem.resource_names
    found = storage_terms(snapshot, Capacities(snapshot), built.unit_usd)
    for mine, theirs in zip(found, build_storage_model(snapshot, built).units, strict=True):
        effects = {names[e.resource]: (tuple(e.gain.tolist()), tuple(e.load.tolist())) for e in theirs.effects}
        effects = {name: effect for name, effect in effects.items() if not name.endswith(".facility_w")}
        assert mine.effects.keys() == effects.keys()
        for name, (gain, load) in mine.effects.items():  # the planner counts the least that storage helps
            assert all(most >= least for most, least in zip(gain, effects[name][0], strict=True))
            assert all(least <= most for least, most in zip(load, effects[name][1], strict=True))
        assert mine.discharge_cost == tuple(theirs.discharge_cost.tolist())
        assert mine.charge_cost == tuple(theirs.charge_cost.tolist())
        assert (mine.start_j, mine.low_j, mine.high_j, mine.end_j) == (
            theirs.start_j,
            theirs.low_j,
            theirs.high_j,
            theirs.end_j,
        )
        assert mine.missing_cost == theirs.short_cost


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_value_of_a_plan_is_the_same(seed):
    plan = some_plan(seed)
    assert value_and_bound(plan)[0] == planners_value([plan], plan.snapshot.jobs)


@pytest.mark.parametrize("seed", range(MULTI_SITE_SEEDS))
def test_the_value_of_several_sites_is_the_same(seed):
    plan = some_multi_site_plan(seed)
    assert multi_site_value_and_bound(plan)[0] == planners_value(plan.plans, plan.jobs)


def planners_value(plans: Sequence[Plan], jobs: tuple[Job, ...]) -> int:
    stops = {job: slots for part in plans for job, slots in plan_value.plan_stops(part).items()}
    snapshots = [msgspec.structs.replace(part.snapshot, jobs=jobs) for part in plans]
    parts = [build_problem(s, stops=stops) for s in snapshots]
    models = [build_storage_model(s, built) for s, built in zip(snapshots, parts, strict=True)]
    joined = join_problems([s.site.name for s in snapshots], parts)
    value = exact_value(joined.built.problem, plan_value.schedule_of(plans, joined.built))
    for part, model in zip(plans, models, strict=True):
        value -= math.ceil(model.cost(plan_value.plan_dispatch(part, model)))
    return value


@pytest.mark.parametrize("seed", range(SEEDS))
def test_loads_and_budgets_are_the_same(seed):
    plan = some_plan(seed)
    mine, theirs = checker_loads.plan_loads(plan), planner_loads.plan_loads(plan)
    assert mine.zone_w.keys() == theirs.zone_w.keys()
    for zone, watts in theirs.zone_w.items():
        np.testing.assert_allclose(mine.zone_w[zone], watts, rtol=1e-9, atol=1e-3)
    for zone, hall in theirs.halls.items():
        for kind in ("heat_w", "capacity_w", "stored_w"):
            left, right = getattr(mine.halls[zone], kind), getattr(hall, kind)
            assert left.keys() == right.keys()
            for medium, watts in right.items():
                np.testing.assert_allclose(left[medium], watts, rtol=1e-9, atol=1e-3)
    budgets, due = checker_loads.zone_budgets(plan.snapshot), planner_loads.zone_budgets(plan.snapshot)
    assert {z: w.tolist() for z, w in budgets.items()} == {z: w.tolist() for z, w in due.items()}
    assert checker_loads.power_before_w(plan.snapshot) == pytest.approx(planner_loads.power_now_w(plan.snapshot))
    for entry in plan.assignments:
        assert checker_loads.slot_span(plan.snapshot, entry) == planner_loads.slot_span(plan.snapshot, entry)
