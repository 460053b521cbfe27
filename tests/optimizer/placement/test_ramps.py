"""Ramp limits: starts and ends are moved apart, the checker finds steeper plans, explanations name the limit."""

import msgspec
import numpy as np
import pytest

from powerhall.jobs import Job
from powerhall.plan.plan import Snapshot, snapshot_hash
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.physics.plan_loads import plan_loads, power_now_w
from powerhall_optimizer.planning import planner
from powerhall_optimizer.planning.explanation import explain_lines
from powerhall_optimizer.verify.plan import verify_plan

START_S = 1_700_000_100
SLOT_S = 300
replace = msgspec.structs.replace


def planned(snapshot, seconds=1.5):
    return planner.make_plan(snapshot, RoundSettings(), seconds, created_s=START_S, log=Log(quiet=True))


def rises(plan):
    """Change of the power at the meter at the beginning of every slot, in W."""
    return np.diff(plan_loads(plan).zone_w["phx"], prepend=power_now_w(plan.snapshot))


def with_ramps(plan, **fields):
    """The same plan on a site with other ramp limits, its id made to fit."""
    snapshot = replace(plan.snapshot, site=replace(plan.snapshot.site, **fields))
    return replace(plan, snapshot=snapshot, plan_id=snapshot_hash(snapshot))


@pytest.fixture(scope="module")
def crowd(site) -> Snapshot:
    """Twenty one-node jobs that can all start now and end together; about 8 kW each at the meter."""
    jobs = tuple(Job(f"w{i:02d}", 8, 3600.0, weight=1.0 + i / 100, node_types=("h100",)) for i in range(20))
    return Snapshot(START_S, START_S, SLOT_S, 48, replace(site, budgets={}), jobs)


@pytest.fixture(scope="module")
def steep(crowd):
    """The plan without ramp limits."""
    return planned(crowd)


def test_without_limits_the_jobs_start_together(steep):
    assert verify_plan(steep) == []
    assert rises(steep).max() > 60e3


def test_starts_are_moved_apart_to_keep_a_limit_on_the_way_up(crowd, steep):
    limit_w = 25e3
    plan = planned(replace(crowd, site=replace(crowd.site, ramp_up_w_per_s=limit_w / SLOT_S)))
    assert verify_plan(plan) == []
    assert rises(plan).max() <= limit_w
    assert len(plan.assignments) == len(steep.assignments), "they start later, none is lost"
    moved = [a for a in plan.assignments if "ramp limit of phx (5 kW/min up)" in a.reason]
    assert moved
    assert any("ramp limit" in line for line in explain_lines(plan, moved[0].job_id))


def test_ends_are_moved_apart_to_keep_a_limit_on_the_way_down(crowd, steep):
    assert -rises(steep).min() > 60e3
    limit_w = 25e3
    plan = planned(replace(crowd, site=replace(crowd.site, ramp_down_w_per_s=limit_w / SLOT_S)))
    assert verify_plan(plan) == []
    assert -rises(plan).min() <= limit_w
    assert len(plan.assignments) == len(steep.assignments)


@pytest.mark.parametrize(("field", "kind", "sign"), [("ramp_up_w_per_s", "up", 1), ("ramp_down_w_per_s", "down", -1)])
def test_a_ramp_limit_one_watt_below_the_plan_is_broken_and_nothing_else(steep, field, kind, sign):
    most_w = float((sign * rises(steep)).max())
    found = verify_plan(with_ramps(steep, **{field: (most_w - 1) / SLOT_S}))
    assert [(v.kind, v.where) for v in found] == [(f"ramp_{kind}", "phx")]
    assert verify_plan(with_ramps(steep, **{field: most_w / SLOT_S})) == []


def test_a_job_whose_own_start_is_steeper_than_the_limit_waits_with_a_reason(crowd):
    jobs = (Job("gang", 64, 3600.0, node_types=("h100",)),)
    site = replace(crowd.site, ramp_up_w_per_s=25e3 / SLOT_S)
    plan = planned(replace(crowd, site=site, jobs=jobs))
    assert verify_plan(plan) == []
    waiting = {w.job_id: w for w in plan.waiting}
    assert set(waiting) == {"gang"}
    assert waiting["gang"].code == "ramp"
    assert "5 kW/min up" in waiting["gang"].reason


def test_ends_of_jobs_that_run_already_are_no_fault_of_the_plan(crowd):
    running = tuple(
        Job(
            f"r{i}",
            32,
            1800.0,
            state="running",
            hall="b",
            node_type="h100",
            mode="eco",
            nodes=f"b-r1-k{i:02d}-n[01-04]",
            start_s=START_S - 900.0,
        )
        for i in (1, 2)
    )
    site = replace(crowd.site, ramp_up_w_per_s=25e3 / SLOT_S, ramp_down_w_per_s=25e3 / SLOT_S)
    plan = planned(replace(crowd, site=site, jobs=running))
    assert verify_plan(plan) == []
    assert -rises(plan).min() > 25e3, "they end together, as they must"
    assert rises(plan)[0] < 25e3, "they are not raised both at once"
