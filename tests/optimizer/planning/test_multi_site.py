"""Several sites planned together: own budgets, weather and tariffs, one queue, and data that stays where it may be."""

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.jobs.left_out import JobList
from powerhall.plan.multi_site import (
    MultiSitePlan,
    multi_site_hash,
    read_multi_site_plan,
    read_plans,
    write_multi_site_plan,
)
from powerhall.plan.plan import Snapshot, read_plan, snapshot_hash
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.timeseries import Series
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import multi_site_queue
from powerhall_optimizer.inputs.what_if import multi_site_what_if
from powerhall_optimizer.planning.explanation import job_explanation
from powerhall_optimizer.planning.figures import multi_site_figures
from powerhall_optimizer.planning.multi_site import make_multi_site_plan
from powerhall_optimizer.verify.multi_site import verify_multi_site
from powerhall_optimizer.verify.plan import verify_plan
from rigs.multi_site import SECOND, START_S, queue, where

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    path = tmp_path_factory.mktemp("fra") / "fra.toml"
    path.write_text(SECOND)
    return read_site(path)[0]


@pytest.fixture(scope="module")
def snapshots(site, second):
    jobs = queue()
    day = 120
    return [
        Snapshot(START_S, START_S, 300, day, site, jobs, price_per_mwh=(200.0,) * day),
        Snapshot(START_S, START_S, 300, day, second, jobs, price_per_mwh=(20.0,) * day),
    ]


@pytest.fixture(scope="module")
def joint(snapshots):
    return planned(snapshots)


def planned(snapshots, seconds=2.0, **more):
    return make_multi_site_plan(snapshots, RoundSettings(), seconds, created_s=START_S, log=Log(quiet=True), **more)


def kinds(plan):
    return {v.kind for v in verify_multi_site(plan)}


def moved_to(plan: MultiSitePlan, job_id: str, site: str) -> MultiSitePlan:
    """Move one job with its assignment from its plan to another, ids made to fit."""
    job = next(j for j in plan.jobs if j.job_id == job_id)
    entry = next(a for part in plan.plans for a in part.assignments if a.job_id == job_id)
    parts = []
    for part in plan.plans:
        here = part.snapshot.site.name == site
        jobs = tuple(j for j in part.snapshot.jobs if j.job_id != job_id) + ((job,) if here else ())
        entries = tuple(a for a in part.assignments if a.job_id != job_id) + ((entry,) if here else ())
        snapshot = replace(part.snapshot, jobs=jobs)
        parts.append(replace(part, snapshot=snapshot, assignments=entries, plan_id=snapshot_hash(snapshot)))
    return replace(plan, plans=tuple(parts))


def test_every_job_is_planned_once_where_its_data_may_be(joint):
    assert verify_multi_site(joint) == []
    at = where(joint)
    assert set(at.values()) == {"phx", "fra"}
    jobs = {job.job_id: job for job in joint.jobs}
    assert all(not jobs[j].sites or site in jobs[j].sites for j, site in at.items())
    assert len(at) > 25
    assert {j.job_id for part in joint.plans for j in part.snapshot.jobs} == set(jobs)
    waits = {w.job_id: w for part in joint.plans for w in part.waiting}
    tokyo = [j for j in jobs.values() if j.sites == ("tokyo",)]
    assert tokyo
    assert all(waits[j.job_id].code == "ineligible" for j in tokyo)


def test_each_sites_plan_stands_alone_with_a_proven_bound(joint):
    for part in joint.plans:
        assert verify_plan(part) == []
        assert part.bound >= part.value
        assert "planned together with" in part.notes[-1]
    assert 0 <= joint.gap < 0.2
    assert joint.bound >= joint.value


def test_two_sites_give_a_higher_value_than_the_same_queue_at_one(joint, snapshots):
    alone = planned(snapshots[:1])
    assert verify_multi_site(alone) == []
    assert joint.value > alone.value
    assert multi_site_figures(joint).work_gpu_s > multi_site_figures(alone).work_gpu_s


def test_free_jobs_go_where_energy_is_cheap(site, second):
    jobs = tuple(Job(f"f{i}", 8, 3600.0, START_S - 10.0, node_types=("h100",)) for i in range(4))
    dear, cheap = (300.0,) * 36, (10.0,) * 36
    site = replace(site, budgets={})
    for prices, home in (((dear, cheap), "fra"), ((cheap, dear), "phx")):
        both = [
            Snapshot(START_S, START_S, 300, 36, one, jobs, price_per_mwh=price)
            for one, price in zip((site, second), prices, strict=True)
        ]
        assert set(where(planned(both, 1.0)).values()) == {home}


@pytest.mark.parametrize("target", ["phx", "fra"])
def test_a_job_moved_to_a_site_where_its_data_may_not_be_is_found(joint, target):
    jobs = {job.job_id: job for job in joint.jobs}
    job_id = next(j for j, site in where(joint).items() if site != target and jobs[j].sites == (site,))
    found = verify_multi_site(moved_to(joint, job_id, target))
    assert ("residency", job_id) in {(v.kind, v.where) for v in found}
    assert ("residency", f"{target}:{job_id}") in {(v.kind, v.where) for v in found}, (
        "the site's own plan tells as well"
    )


def test_a_queue_that_forgets_where_data_must_be_is_found(joint):
    """Rewriting the job in one plan, so that this plan alone looks sound, breaks the queue's own record."""
    jobs = {job.job_id: job for job in joint.jobs}
    job_id = next(j for j, site in where(joint).items() if jobs[j].sites == ("fra",))
    bad = moved_to(joint, job_id, "phx")
    part = bad.plans[0]
    free = tuple(replace(j, sites=()) if j.job_id == job_id else j for j in part.snapshot.jobs)
    snapshot = replace(part.snapshot, jobs=free)
    part = replace(part, snapshot=snapshot, plan_id=snapshot_hash(snapshot))
    found = verify_multi_site(replace(bad, plans=(part, *bad.plans[1:])))
    assert ("jobs", job_id) in {(v.kind, v.where) for v in found}
    assert ("residency", job_id) in {(v.kind, v.where) for v in found}


def test_a_job_in_two_plans_or_in_none_is_found(joint):
    first, second = joint.plans
    job = first.snapshot.jobs[0]
    twice = replace(second.snapshot, jobs=(*second.snapshot.jobs, job))
    assert "jobs" in kinds(replace(joint, plans=(first, replace(second, snapshot=twice, plan_id=snapshot_hash(twice)))))
    fewer = replace(first.snapshot, jobs=first.snapshot.jobs[1:])
    assert "jobs" in kinds(replace(joint, plans=(replace(first, snapshot=fewer, plan_id=snapshot_hash(fewer)), second)))


def test_a_changed_value_bound_id_site_or_slot_is_found(joint):
    assert kinds(replace(joint, value=joint.value + 1)) == {"value"}
    assert kinds(replace(joint, bound=joint.bound - 1)) == {"bound"}
    assert kinds(replace(joint, plan_id="0" * 64)) == {"identity"}
    wrong = replace(joint.certificate, prices={"phx:nowhere": (1,) * 120})
    assert kinds(replace(joint, certificate=wrong)) == {"certificate"}
    assert "sites" in kinds(replace(joint, plans=(joint.plans[0], joint.plans[0])))
    later = replace(joint.plans[1].snapshot, slots=119)
    assert "sites" in kinds(replace(joint, plans=(joint.plans[0], replace(joint.plans[1], snapshot=later))))


def test_a_limit_of_one_site_that_is_broken_names_the_site(joint):
    part = joint.plans[1]
    snapshot = replace(part.snapshot, site=replace(part.snapshot.site, power_limit_w=40e3))
    part = replace(part, snapshot=snapshot, plan_id=snapshot_hash(snapshot))
    parts = (joint.plans[0], part)
    found = verify_multi_site(
        replace(joint, plans=parts, plan_id=multi_site_hash([p.snapshot for p in parts], joint.jobs))
    )
    assert [(v.kind, v.where) for v in found] == [("power_site", "fra")]


def test_running_jobs_stay_at_their_site(site, second):
    runs = Job(
        "r",
        16,
        7200.0,
        state="running",
        hall="b",
        node_type="h100",
        mode="full",
        nodes="b-r1-k01-n[01-02]",
        start_s=0.0,
    )
    (lost,) = multi_site_queue([site, second], [runs], "jobs.csv").left_out
    assert lost.reason == "site: None: a running job must give its site, one of phx, fra"
    assert lost.running
    jobs = (replace(runs, site="fra"), *queue(10))
    assert multi_site_queue([site, second], jobs, "jobs.csv") == JobList(jobs)
    both = [Snapshot(START_S, START_S, 300, 60, one, jobs) for one in (site, second)]
    plan = planned(both, 1.0)
    assert verify_multi_site(plan) == []
    assert where(plan)["r"] == "fra"
    assert "running" in kinds(moved_to(plan, "r", "phx"))


def test_a_shed_at_one_site_does_not_affect_the_other(site, second):
    runs = tuple(
        Job(
            f"r{i}",
            32,
            7200.0,
            weight=float(i),
            state="running",
            hall="b",
            node_type="h100",
            mode="full",
            nodes=f"b-r1-k{i:02d}-n[01-04]",
            start_s=0.0,
            site="fra",
        )
        for i in (1, 2)
    )
    cut = replace(second, budgets={"fra": Series((0.0,), (52e3,))})
    both = [Snapshot(START_S, START_S, 300, 60, one, (*runs, *queue(20))) for one in (site, cut)]
    plan = planned(both, 1.5)
    assert verify_multi_site(plan) == []
    shed = [w for part in plan.plans for w in part.waiting if w.code == "shed"]
    assert [w.job_id for w in shed] == ["r1"], "the one of less weight"
    assert "r1" not in where(plan)
    assert where(plan)["r2"] == "fra"
    assert "phx" in where(plan).values()
    assert any("running jobs stop" in note for note in plan.plans[1].notes)
    assert not any("running jobs stop" in note for note in plan.plans[0].notes)


BATTERY = """
[[batteries]]
name = "pack"
energy = "60 kWh"
charge_power = "20 kW"
discharge_power = "20 kW"
"""


def test_a_battery_of_one_site_takes_part_and_the_bound_stays_proven(site, tmp_path):
    (tmp_path / "fra.toml").write_text(SECOND + BATTERY)
    jobs = queue(40)
    dip = Series((0.0, START_S + 3600.0, START_S + 7200.0), (120e3, 60e3, 120e3))
    second = replace(read_site(tmp_path / "fra.toml")[0], budgets={"fra": dip})
    both = [Snapshot(START_S, START_S, 300, 60, one, jobs) for one in (site, second)]
    plan = planned(both, 3.0)
    assert verify_multi_site(plan) == []
    assert plan.status == "feasible"
    fra = plan.plans[1]
    assert max(fra.storages[0].power_w) > 0, "it helps through the dip"
    assert set(plan.certificate.stored) <= {"fra:pack"}
    assert plan.bound >= plan.value
    entry = replace(fra.storages[0], power_w=tuple(w + 1 for w in fra.storages[0].power_w))
    assert kinds(replace(plan, plans=(plan.plans[0], replace(fra, storages=(entry,)))))


def test_the_last_plan_of_the_sites_is_a_warm_start(joint, snapshots):
    again = planned(snapshots, 2.0, previous=joint)
    assert verify_multi_site(again) == []
    assert again.plan_id == joint.plan_id


def test_explanations_name_the_sites(joint):
    jobs = {job.job_id: job for job in joint.jobs}
    pinned = next(j for j in where(joint) if jobs[j].sites == ("fra",))
    text = "\n".join(job_explanation(joint, pinned, "plan").lines)
    assert "site fra:" in text
    assert "site phx: its data may not be there (may run only at fra)" in text
    free = next(
        (w.job_id for p in joint.plans for w in p.waiting if jobs[w.job_id].sites in ((), ("phx", "fra"))), None
    )
    free = free or next(j for j in where(joint) if not jobs[j].sites)
    text = "\n".join(job_explanation(joint, free, "plan").lines)
    assert "site fra:" in text
    assert "site phx:" in text
    assert "alternative: " in text


def test_what_if_changes_one_site_or_a_job_at_all(snapshots):
    phx, fra = multi_site_what_if(snapshots, "fra:grid=-20%,j1.weight=9,phx:b.power=100kW")
    assert fra.site.power_limit_w == pytest.approx(96e3)
    assert phx.site.hall("b").power_limit_w == 100e3
    assert {next(j for j in s.jobs if j.job_id == "j1").weight for s in (phx, fra)} == {9.0}
    with pytest.raises(Rejected, match="must name one of the sites phx, fra"):
        multi_site_what_if(snapshots, "grid=-20%")


def test_a_plan_of_several_sites_is_read_back_as_it_was(joint, tmp_path):
    write_multi_site_plan(joint, tmp_path / "plan.json")
    assert read_multi_site_plan(tmp_path / "plan.json") == joint
    assert isinstance(read_plans(tmp_path / "plan.json"), MultiSitePlan)
    with pytest.raises(Rejected, match=r"must be the plan of one site; those of the sites lie beside it"):
        read_plan(tmp_path / "plan.json")
    (tmp_path / "old.json").write_text((tmp_path / "plan.json").read_text().replace('"version":2', '"version":9'))
    with pytest.raises(Rejected, match="version: 9: must be 1 or 2"):
        read_multi_site_plan(tmp_path / "old.json")
    (tmp_path / "old.json").write_text((tmp_path / "plan.json").read_text().replace('"version":2', '"version":1'))
    assert read_multi_site_plan(tmp_path / "old.json").plan_id == joint.plan_id
