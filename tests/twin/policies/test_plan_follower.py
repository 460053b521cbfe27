"""The file scheduler follows a plan, and never further than the budgets."""

import msgspec
import pytest
from twin_jobs import START_S, job

from powerhall.plan.plan import Assignment, Placement, Plan, Snapshot, Waiting
from powerhall.site.index import SiteIndex
from powerhall_twin.policies.admission import Admission, planned_rack_w
from powerhall_twin.policies.plan_follower import PlanScheduler
from powerhall_twin.site.actions import SetMode, Start, Stop, apply
from powerhall_twin.site.building_meters import MILD
from powerhall_twin.site.cluster import Cluster
from powerhall_twin.site.queue import Queue


def entry(job_id: str, nodes: str, gpus: int, start_s: float, mode: str = "p700", **more) -> Assignment:
    each = min(8, gpus)
    place = Placement("hall1/a/k01", nodes, each)
    power_w = {"p700": 977.0, "p350": 550.0}[mode]
    span = int(start_s), int(start_s) + 3600
    return Assignment(job_id, "hall1", "hgx-h100", mode, gpus, power_w, *span, (place,), **more)


@pytest.fixture
def make_plan(site):
    def make(jobs, assignments, waiting=()):
        snapshot = Snapshot(int(START_S), int(START_S), 300, 12, site, tuple(jobs))
        return Plan(1, "id", int(START_S), "feasible", 0, 0, 0.0, tuple(assignments), tuple(waiting), (), snapshot)

    return make


def starts(scheduler, cluster, queue, now_s, budgets=None):
    budgets = SiteIndex.of(cluster.site).budgets_at(now_s) if budgets is None else budgets
    admission = Admission.of(cluster, budgets, MILD)
    found = []
    for start in scheduler.due(cluster, queue, admission, now_s):
        apply(cluster, [start], now_s)
        found.append(start.job.job_id)
    return found


def test_a_job_starts_on_its_nodes_when_its_time_has_come(site, make_plan):
    jobs = [job("a", 16, 1), job("b", 4, 1)]
    plan = make_plan(
        jobs, [entry("a", "hall1-a-k01-n[01-02]", 16, START_S), entry("b", "hall1-a-k01-n03", 4, START_S + 600)]
    )
    cluster, queue, scheduler = Cluster.of(site), Queue.of(jobs), PlanScheduler()
    assert scheduler.take(plan, cluster) == []
    assert starts(scheduler, cluster, queue, START_S) == ["a"]
    assert [part.node for part in cluster.runs["a"].slices] == ["hall1-a-k01-n01", "hall1-a-k01-n02"]
    assert starts(scheduler, cluster, queue, START_S + 300) == []
    assert starts(scheduler, cluster, queue, START_S + 600) == ["b"]


def test_a_job_whose_predecessor_runs_late_waits_for_the_gpus(site, make_plan):
    jobs = [job("a", 8, 1), job("b", 8, 1)]
    plan = make_plan(jobs, [entry("a", "hall1-a-k01-n01", 8, START_S), entry("b", "hall1-a-k01-n01", 8, START_S + 300)])
    cluster, queue, scheduler = Cluster.of(site), Queue.of(jobs), PlanScheduler()
    scheduler.take(plan, cluster)
    assert starts(scheduler, cluster, queue, START_S) == ["a"]
    assert starts(scheduler, cluster, queue, START_S + 600) == []
    assert scheduler.late == {"b"}
    cluster.stop("a")
    queue.records["a"].ended_s = START_S + 900
    assert starts(scheduler, cluster, queue, START_S + 900) == ["b"]


def test_a_start_that_would_break_a_budget_is_held_back(site, make_plan):
    jobs = [job("a", 8, 1), job("b", 8, 1)]
    plan = make_plan(jobs, [entry("a", "hall1-a-k01-n01", 8, START_S), entry("b", "hall1-a-k01-n02", 8, START_S)])
    cluster, queue, scheduler = Cluster.of(site), Queue.of(jobs), PlanScheduler()
    scheduler.take(plan, cluster)
    tight = {"hall1/a/k01": 8 * 1660.0 + 1.5 * (8 * 977.0 - 1660.0)}
    assert starts(scheduler, cluster, queue, START_S, tight) == ["a"]
    assert planned_rack_w(cluster)["hall1/a/k01"] <= tight["hall1/a/k01"]


def test_a_new_plan_stops_slows_and_continues_jobs(site, make_plan):
    jobs = [job(name, 8, 1) for name in "abc"]
    first = make_plan(jobs, [entry(n, f"hall1-a-k01-n0{i}", 8, START_S) for i, n in enumerate("abc", 1)])
    cluster, queue, scheduler = Cluster.of(site), Queue.of(jobs), PlanScheduler()
    scheduler.take(first, cluster)
    starts(scheduler, cluster, queue, START_S)
    slower = entry("b", "hall1-a-k01-n02", 8, START_S, "p350", running=True)
    kept = entry("c", "hall1-a-k01-n03", 8, START_S, running=True)
    actions = scheduler.take(make_plan(jobs, [slower, kept]), cluster)
    assert actions == [Stop("a"), SetMode("b", cluster.runs["b"].node_type.modes[-1], 550.0)]


def test_a_job_outside_the_plan_is_left_alone(site, make_plan):
    jobs = [job("a", 8, 1)]
    cluster, queue, scheduler = Cluster.of(site), Queue.of(jobs), PlanScheduler()
    scheduler.take(make_plan(jobs, [entry("a", "hall1-a-k01-n01", 8, START_S)]), cluster)
    starts(scheduler, cluster, queue, START_S)
    assert scheduler.take(make_plan([job("other", 8, 1)], []), cluster) == []


def test_a_job_shed_at_a_coming_curtailment_stops_then(site, make_plan):
    jobs = [job("a", 8, 9)]
    cluster, queue, scheduler = Cluster.of(site), Queue.of(jobs), PlanScheduler()
    scheduler.take(make_plan(jobs, [entry("a", "hall1-a-k01-n01", 8, START_S)]), cluster)
    starts(scheduler, cluster, queue, START_S)
    goes_on = msgspec.structs.replace(entry("a", "hall1-a-k01-n01", 8, START_S), running=True)
    plan = make_plan(jobs, [goes_on], [Waiting("a", "shed", "curtailment")])
    assert scheduler.take(plan, cluster) == []
    assert scheduler.ends_due(cluster, START_S + 3599) == []
    assert scheduler.ends_due(cluster, START_S + 3600) == [Stop("a")]


def test_a_gang_that_is_no_multiple_of_a_node_gets_exactly_its_gpus(site, make_plan):
    jobs = [job("a", 12, 1)]
    cluster, queue, scheduler = Cluster.of(site), Queue.of(jobs), PlanScheduler()
    scheduler.take(make_plan(jobs, [entry("a", "hall1-a-k01-n[01-02]", 12, START_S)]), cluster)
    admission = Admission.of(cluster, SiteIndex.of(site).budgets_at(START_S), MILD)
    (start,) = scheduler.due(cluster, queue, admission, START_S)
    assert isinstance(start, Start)
    assert sum(len(part.gpus) for part in start.slices) == 12
