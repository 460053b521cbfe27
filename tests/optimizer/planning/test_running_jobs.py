"""Running jobs: they stay, slow down before anything stops, and are shed in the stated order when budgets fall."""

import dataclasses
import os
import time

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.timeseries import Series
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning import candidates, planner
from powerhall_optimizer.verify.plan import verify_plan

START_S = 1_700_000_100
replace = msgspec.structs.replace
QUIET = Log(quiet=True)


def plan_of(snapshot, seconds=2.0):
    settings = RoundSettings(work_rate=0.085)  # as much work in ten times the time: no deadline cuts it short
    plan = planner.make_plan(snapshot, settings, 10 * seconds, created_s=START_S, log=QUIET)
    assert verify_plan(plan) == []
    return plan


def running(job_id, rack, nodes, *, weight=1.0, mode="full", hours=4.0, preemptible=False, age_s=600.0):
    stem = rack.replace("/", "-")
    return Job(
        job_id,
        8 * nodes,
        hours * 3600,
        START_S - 7200.0,
        weight=weight,
        preemptible=preemptible,
        state="running",
        hall=rack.split("/")[0],
        node_type="h100",
        mode=mode,
        nodes=f"{stem}-n[01-{nodes:02d}]",
        start_s=START_S - age_s,
    )


@pytest.fixture
def busy(site) -> Snapshot:
    """Hall b full of running jobs, hall a half full, nothing waiting, no curtailment."""
    jobs = tuple(running(f"b{i}", f"b/r1/k{i:02d}", 3, weight=float(i)) for i in (1, 2, 3))
    jobs += (running("z", "a/r1/z", 4, weight=9.0), running("p", "a/r2/k01", 4, weight=20.0, preemptible=True))
    return Snapshot(START_S, START_S, 300, 72, replace(site, budgets={}), jobs)


def test_running_jobs_stay_on_their_nodes(busy):
    plan = plan_of(busy)
    where = {a.job_id: a for a in plan.assignments}
    assert set(where) == {"b1", "b2", "b3", "z", "p"}
    for job in busy.jobs:
        nodes = [n for p in where[job.job_id].placements for n in expand(p.nodes)]
        assert nodes == list(expand(job.nodes))
        assert where[job.job_id].running


def test_a_curtailment_slows_jobs_before_it_stops_any(busy):
    cut = replace(busy, site=replace(busy.site, budgets={"b": Series((0.0,), (62e3,))}))
    plan = plan_of(cut)
    assert {a.job_id for a in plan.assignments} >= {"b1", "b2", "b3"}
    assert {a.mode for a in plan.assignments if a.hall == "b"} != {"full"}
    assert not plan.waiting


def test_shedding_takes_preemptible_jobs_first_then_the_least_weight(busy):
    cut = replace(busy, site=replace(busy.site, budgets={"b": Series((0.0,), (52e3,))}))
    plan = plan_of(cut)
    shed = {w.job_id: w for w in plan.waiting}
    assert set(shed) == {"b1"}
    assert shed["b1"].code == "shed"
    assert "power of b" in shed["b1"].reason
    assert shed["b1"].binding == ("b",)
    assert any("power of b" in note for note in plan.notes)

    jobs = tuple(replace(job, preemptible=job.job_id == "b3") for job in busy.jobs)
    plan = plan_of(replace(cut, jobs=jobs))
    assert {w.job_id for w in plan.waiting} == {"b3"}, "it has most weight, but may be preempted"


def test_a_job_that_only_breaks_a_later_budget_runs_until_then(busy):
    later = float(START_S + 3 * 3600)
    budgets = {"b": Series((0.0, later), (1e6, 52e3))}
    jobs = tuple(replace(job, duration_s=8 * 3600.0) for job in busy.jobs)
    plan = plan_of(replace(busy, jobs=jobs, site=replace(busy.site, budgets=budgets)))
    entry = next(a for a in plan.assignments if a.job_id == "b1")
    assert entry.end_s <= later
    assert entry.end_s > later - 600
    assert next(w for w in plan.waiting if w.job_id == "b1").code == "shed"


def test_a_budget_below_the_idle_site_is_refused_in_one_line(busy):
    dark = replace(busy, site=replace(busy.site, budgets={"b": Series((0.0,), (1e3,))}))
    with pytest.raises(Rejected, match=r"b: power budget at .* below the load of the idle site"):
        planner.make_plan(dark, RoundSettings(), 1.0, created_s=START_S, log=QUIET)


def test_stale_nodes_count_at_their_maximum_and_take_nothing_new(busy, site):
    stale = tuple(f"a-r2-k{rack:02d}-n{node:02d}" for rack in (2, 3) for node in (1, 2, 3, 4))
    waiting = tuple(Job(f"w{i}", 8, 3600.0) for i in range(30))
    fresh = plan_of(replace(busy, jobs=busy.jobs + waiting))
    plan = plan_of(replace(busy, jobs=busy.jobs + waiting, stale_nodes=stale, allow_raises=False))
    used = {n for a in plan.assignments for p in a.placements for n in expand(p.nodes) if not a.running}
    assert used
    assert not used & set(stale)
    zone = {z.zone: z for z in plan.zones}
    assert min(zone["a/r2/k02"].planned_w) == 4 * 10_200
    assert plan.value < fresh.value


def test_without_raises_no_running_job_gets_a_faster_mode(busy):
    slow = tuple(replace(job, mode="low") for job in busy.jobs)
    assert {a.mode for a in plan_of(replace(busy, jobs=slow)).assignments} != {"low"}
    assert {a.mode for a in plan_of(replace(busy, jobs=slow, allow_raises=False)).assignments} == {"low"}


def test_a_checkpoint_that_costs_more_than_the_change_brings_keeps_a_job_running(busy):
    """A small hall full of one preemptible job; a waiting job of slightly higher value needs its nodes."""
    runs = running("old", "b/r1/k01", 4, preemptible=True, hours=4.0)
    wants = Job("new", 32, 4 * 3600.0, weight=1.2, halls=("b",), node_types=("h100",), deadline_s=START_S + 5 * 3600.0)
    others = tuple(running(f"b{i}", f"b/r1/k{i:02d}", 4, hours=10.0) for i in (2, 3))
    site = replace(busy.site, budgets={})
    cheap = plan_of(replace(busy, site=site, jobs=(runs, wants, *others)))
    assert [w.code for w in cheap.waiting if w.job_id == "old"] == ["preempted"]
    dear = replace(runs, checkpoint_cost_s=3600.0)
    kept = plan_of(replace(busy, site=site, jobs=(dear, wants, *others)))
    assert {a.job_id for a in kept.assignments} == {"old", "b2", "b3"}


def test_a_job_that_cannot_meet_its_deadline_is_not_started(busy):
    late = Job("late", 8, 4 * 3600.0, deadline_s=START_S + 3600.0)
    soon = Job("soon", 8, 1800.0, deadline_s=START_S + 3600.0)
    plan = plan_of(replace(busy, jobs=(*busy.jobs, late, soon)))
    assert "soon" in {a.job_id for a in plan.assignments}
    assert "late" in {w.job_id for w in plan.waiting}


def test_a_fault_in_the_solver_leaves_a_verified_plan_with_a_note(snapshot, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("the solver lost its way")

    monkeypatch.setattr("powerhall_optimizer.solve.pipeline.solve", broken)
    plan = plan_of(snapshot)
    assert plan.status == "fallback"
    assert "greedy" in plan.notes[0]
    assert len(plan.assignments) > 30


def test_the_chain_ends_in_keeping_running_jobs(busy, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("no")

    monkeypatch.setattr("powerhall_optimizer.solve.pipeline.solve", broken)
    monkeypatch.setattr(candidates, "fill_by_density", broken)
    plan = plan_of(replace(busy, jobs=(*busy.jobs, Job("w", 8, 3600.0))))
    assert plan.notes == ("fallback: keeps what runs and starts nothing new",)
    assert {a.job_id for a in plan.assignments} == {job.job_id for job in busy.jobs}
    assert [w.job_id for w in plan.waiting] == ["w"]


def test_a_schedule_that_breaks_limits_is_rejected(snapshot, monkeypatch):
    from powerhall_optimizer.solve import pipeline

    real = pipeline.solve

    def cheat(problem, **arguments):
        return real(dataclasses.replace(problem, capacity=problem.capacity * 3), **arguments)

    monkeypatch.setattr(pipeline, "solve", cheat)
    plan = plan_of(snapshot)
    assert verify_plan(plan) == []
    assert plan.status == "fallback"


JOBS = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.integers(60, 30_000),
        st.integers(0, 20_000),
        st.sampled_from([0.5, 1.0, 7.0]),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    JOBS,
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.floats(0.0, 1.0),
    st.integers(0, 20),
    st.sets(st.integers(0, 11), max_size=4),
    st.sampled_from([None, 12e3, 40e3]),
    st.sampled_from([None, 12e3, 40e3]),
)
def test_every_plan_holds_every_limit_whatever_runs_and_waits(site, waiting, held, depth, cut_at, stale, up_w, down_w):
    racks = ("a/r1/k01", "a/r1/z", "a/r2/k02", "b/r1/k03")
    pairs = enumerate(zip(racks, held, strict=True))
    jobs = [running(f"r{i}", rack, n, weight=1.0 + i, mode="low") for i, (rack, n) in pairs if n]
    jobs += [
        Job(f"w{i}", g, float(d), float(START_S + s), weight=w, node_types=("h100",) if t else ())
        for i, (g, d, s, w, t) in enumerate(waiting)
    ]
    cut_s = float(START_S + cut_at * 300)
    floor_w = 150e3 + 4 * 8.2e3 * 1.5
    budgets = {"phx": Series((0.0, cut_s, cut_s + 3000), (330e3, floor_w + depth * (330e3 - floor_w), 330e3))}
    names = [node for rack in site.racks() for node in rack.nodes]
    snapshot = Snapshot(
        START_S,
        START_S,
        300,
        24,
        replace(
            site,
            budgets=budgets,
            ramp_up_w_per_s=None if up_w is None else up_w / 300,
            ramp_down_w_per_s=None if down_w is None else down_w / 300,
        ),
        tuple(jobs),
        stale_nodes=tuple(names[5 * i] for i in stale if 5 * i < len(names)),
    )
    plan = plan_of(snapshot, 0.2)
    assert plan.bound >= plan.value


def test_a_solver_that_hangs_or_dies_is_ended_and_the_greedy_takes_over(snapshot, monkeypatch, capsys):
    monkeypatch.setattr(candidates, "_GRACE_S", 0.3)
    monkeypatch.setattr("powerhall_optimizer.solve.jit_warmup.compile_solver", lambda: None)  # it solves, too
    for fault, said in ((lambda *_a, **_k: time.sleep(600), "not done"), (lambda *_a, **_k: os._exit(9), "died")):
        monkeypatch.setattr("powerhall_optimizer.solve.pipeline.solve", fault)
        began = time.monotonic()
        plan = planner.make_plan(snapshot, RoundSettings(), 0.5, created_s=START_S, log=Log())
        assert time.monotonic() - began < 30
        assert plan.status == "fallback"
        assert verify_plan(plan) == []
        assert said in capsys.readouterr().err
