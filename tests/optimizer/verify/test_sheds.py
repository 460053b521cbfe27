"""Sheds are refused unless a limit needs them, in the order of the docs; those of the planner are never refused."""

import random

import msgspec
import pytest

from powerhall.hostlist import compress
from powerhall.jobs import Job
from powerhall.plan.plan import Plan, Snapshot, Waiting
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.timeseries import Series
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.plan import verify_plan
from rigs.claims import with_claims
from rigs.exact_site import small_site

START_S = 1_700_000_100
replace = msgspec.structs.replace


def running(number: int, *, weight: float = 1.0, preemptible: bool = False, hours: float = 4.0) -> Job:
    """A running job on the rack b/r1/k0N."""
    return Job(
        f"b{number}", 24, hours * 3600, START_S - 7200.0, weight=weight, preemptible=preemptible, state="running",
        hall="b", node_type="h100", mode="full", nodes=f"b-r1-k{number:02d}-n[01-03]", start_s=START_S - 600.0,
    )  # fmt: skip


def planned(site, budget: Series, *jobs: Job) -> Plan:
    snapshot = Snapshot(START_S, START_S, 300, 72, replace(site, budgets={"b": budget}), jobs)
    return make_plan(snapshot, RoundSettings(), 1.0, created_s=START_S, log=Log(quiet=True))


def shed(plan: Plan, job_id: str, slots: int = 0) -> Plan:
    """The plan with one more shed job, its value and bound made to fit; it still runs for some slots."""
    entry = next(a for a in plan.assignments if a.job_id == job_id)
    kept = [a for a in plan.assignments if a is not entry]
    if slots:
        kept.append(replace(entry, end_s=entry.start_s + slots * plan.snapshot.slot_s))
    plan = replace(plan, assignments=tuple(kept), waiting=(*plan.waiting, Waiting(job_id, "shed", "")), zones=())
    return with_claims(replace(plan, plants=()))


def found(plan: Plan) -> list[tuple[str, str]]:
    return [(violation.kind, violation.where) for violation in verify_plan(plan)]


ALWAYS_52_KW = Series((0.0,), (52e3,))
"""Carries two of three running jobs."""


@pytest.mark.parametrize("preemptible", [False, True])
def test_a_needless_shed_is_refused_whether_or_not_the_job_may_be_stopped(site, preemptible):
    jobs = [running(n, preemptible=preemptible) for n in (1, 2)]
    plan = planned(site, Series((0.0,), (1e6,)), *jobs)
    assert verify_plan(plan) == []
    assert found(shed(plan, "b1")) == [("shed", "b1")]


def test_the_shed_of_another_job_than_the_last_in_order_is_refused(site):
    plan = planned(site, ALWAYS_52_KW, *(running(n, weight=float(n)) for n in (1, 2, 3)))
    assert [w.job_id for w in plan.waiting] == ["b1"]
    assert verify_plan(plan) == []
    assert ("shed", "b3") in found(shed(plan, "b3"))


def test_a_job_that_may_be_stopped_goes_before_one_that_may_not(site):
    jobs = [running(1, weight=9.0, preemptible=True), running(2), running(3)]
    plan = planned(site, ALWAYS_52_KW, *jobs)
    assert [w.job_id for w in plan.waiting] == ["b1"]
    assert ("shed", "b2") in found(shed(plan, "b2"))


def test_a_shed_earlier_than_a_limit_needs_is_refused(site):
    later_s = START_S + 3 * 3600.0
    jobs = [running(n, weight=float(n), hours=8.0) for n in (1, 2, 3)]
    plan = planned(site, Series((0.0, later_s), (1e6, 52e3)), *jobs)
    entry = next(a for a in plan.assignments if a.job_id == "b1")
    assert entry.end_s <= later_s
    assert verify_plan(plan) == []
    early = replace(entry, end_s=entry.end_s - 1200)
    earlier = replace(plan, assignments=tuple(early if a is entry else a for a in plan.assignments), zones=())
    assert found(with_claims(replace(earlier, plants=()))) == [("shed", "b1")]


def with_running_jobs(draw: random.Random, s: Snapshot) -> Snapshot:
    """The site full of running jobs, and every limit so low at times that many of them stop."""
    jobs = []
    for rack in s.site.racks():
        kind = s.site.node_types[rack.node_type]
        for node in rack.nodes if draw.random() < 0.8 else ():
            if node not in s.stale_nodes:
                jobs.append(
                    Job(
                        f"r{len(jobs)}", draw.choice([kind.gpus, kind.gpus // 2]), draw.uniform(200, 9000), START_S,
                        weight=draw.choice([1.0, draw.uniform(0.1, 5)]), preemptible=draw.random() < 0.5,
                        state="running", hall=rack.zone.split("/")[0], node_type=kind.name,
                        mode=draw.choice(["full", "low"]), nodes=compress([node]),
                        start_s=START_S - draw.random() * 999,
                    )
                )  # fmt: skip
    limit_w = s.site.power_limit_w or 1e9
    return replace(s, jobs=tuple(jobs), allow_raises=draw.random() < 0.7,
                   site=replace(s.site, power_limit_w=limit_w * draw.uniform(0.5, 1.0)))  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_no_shed_of_the_planner_is_refused(seed, capsys):
    draw = random.Random(seed)
    snapshot = with_running_jobs(draw, small_site(draw))
    try:
        plan = make_plan(snapshot, RoundSettings(workers=1), 0.2, created_s=0, log=Log())
    except Rejected:
        pytest.skip("over its limits when idle")
    assert verify_plan(plan) == []
    assert "draft_refused" not in capsys.readouterr().err
