"""Parts of GPUs: every plan keeps each GPU and the power by a judge of its own, the bound holds for every way to share.

`PROVE` in the environment is the number of random sites.
"""

import json
import os
import random
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from powerhall.jobs import Job, read_jobs, write_jobs
from powerhall.jobs.job_files import read_job_list
from powerhall.plan.plan import Plan, Snapshot, snapshot_hash
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.left_out_jobs import fitting_jobs
from powerhall_optimizer.inputs.observed_nodes import observed_nodes
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.seated_jobs import without_parts
from powerhall_optimizer.planning.assemble import with_loads
from powerhall_optimizer.planning.explanation import job_explanation
from powerhall_optimizer.planning.multi_site import make_multi_site_plan
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.options import unit_usd
from powerhall_optimizer.verify.plan import verify_plan
from rigs.claims import with_claims
from rigs.gpu_shares import MODES, SLOT_S, START_S, best_usd, faults, random_snapshot, site, tiny

SEEDS = range(int(os.environ.get("PROVE", "24")))
replace = msgspec.structs.replace


def planned(snapshot: Snapshot, seconds: float = 0.4, previous: Plan | None = None) -> Plan:
    log = Log(quiet=True)
    return make_plan(snapshot, RoundSettings(workers=1), seconds, created_s=0, log=log, previous=previous)


def observed(snapshot: Snapshot) -> Snapshot:
    return observed_nodes(snapshot, snapshot.down_nodes, ())


def judged(plan: Plan) -> list[str]:
    return faults(json.loads(msgspec.json.encode(plan)))


def fitted(plan: Plan) -> Plan:
    """What follows from decisions made to fit again, so that nothing but the change itself can be found."""
    plan = with_loads(replace(plan, plan_id=snapshot_hash(plan.snapshot)), {})
    try:
        return with_claims(plan)
    except (ValueError, PowerhallError):
        return plan


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    return [planned(observed(random_snapshot(random.Random(seed)))) for seed in SEEDS]


def test_plans_keep_every_gpu_and_the_power(plans: list[Plan]) -> None:
    for plan in plans:
        assert verify_plan(plan) == []
        assert judged(plan) == []
        assert plan.bound >= plan.value
    guests = sum(bool(entry.beside) for plan in plans for entry in plan.assignments)
    runs = sum(bool(entry.beside) and entry.running for plan in plans for entry in plan.assignments)
    joins = sum(not entry.running and entry.beside in {e.job_id for e in plan.assignments if e.running}
                for plan in plans for entry in plan.assignments)  # fmt: skip
    sheds = sum(entry.code == "shed" for plan in plans for entry in plan.waiting)
    assert min(guests, runs, joins, sheds) > 0


def test_changed_plans_are_refused_where_the_judge_refuses(plans: list[Plan]) -> None:
    draw, wrong, seen = random.Random(5), 0, set()
    for plan in plans:
        for _ in range(8):
            name, changed = change(draw, plan)
            if changed is None or not judged(changed):
                continue
            wrong += 1
            seen.add(name)
            assert verify_plan(fitted(changed)), name
    assert wrong > 30
    assert {"larger", "crowded", "mode"} <= seen


def change(draw: random.Random, plan: Plan) -> tuple[str, Plan | None]:
    """Return a plan with one change in its parts, None where it has no part to change."""
    guests = [entry for entry in plan.assignments if entry.beside]
    if not guests:
        return "", None
    entry, name = draw.choice(guests), draw.choice(["larger", "crowded", "mode", "node", "early", "alone", "self"])
    jobs, entries = plan.snapshot.jobs, plan.assignments
    if name == "larger":
        jobs = tuple(replace(job, gpu_share="9/10") if job.job_id == entry.job_id else job for job in jobs)
        return name, replace(plan, snapshot=replace(plan.snapshot, jobs=jobs))
    others = [other for other in entries if other.gpus == 1 and other.job_id != entry.beside]
    if name == "crowded" and others:
        host = draw.choice(others)
        moved = replace(host, job_id=entry.job_id, gpus=0, beside=host.job_id, end_s=entry.end_s, running=entry.running)
        moved = replace(moved, placements=tuple(replace(p, gpus_per_node=0) for p in host.placements))
    elif name == "mode":
        other = next(mode for mode in MODES if mode.name != entry.mode)
        moved = replace(entry, mode=other.name, gpu_power_w=other.gpu_power_w)
    elif name == "node":
        moved = replace(
            entry, placements=tuple(replace(p, nodes="c1" if p.nodes == "c0" else "c0") for p in entry.placements)
        )
    elif name == "early":
        moved = replace(entry, end_s=entry.end_s + 3 * SLOT_S)
    elif name == "alone":
        moved = replace(entry, beside="")
    else:
        moved = replace(entry, beside=entry.job_id)
    return name, replace(plan, assignments=tuple(moved if e is entry else e for e in entries))


def test_every_kind_of_wrong_part_is_refused() -> None:
    plan = shared_plan()
    host = next(entry for entry in plan.assignments if entry.gpus == 1 and not entry.running)
    guest = next(entry for entry in plan.assignments if entry.beside == host.job_id)
    wrong = {
        "no GPU of its own": {"beside": ""},
        "does not have a GPU in parts": {"beside": "nobody"},
        "counts GPUs of its own": {"gpus": 1},
        "on other nodes": {"placements": tuple(replace(p, nodes="c1") for p in guest.placements)},
        "before or after": {"start_s": guest.start_s + 40 * SLOT_S, "end_s": guest.end_s + 40 * SLOT_S},
        "another place or mode": {"mode": "eco"},
    }
    for text, fields in wrong.items():
        changed = tuple(replace(entry, **fields) if entry is guest else entry for entry in plan.assignments)
        found = verify_plan(replace(plan, assignments=changed))
        assert any(violation.kind in ("share", "gang", "number") for violation in found), text
    assert verify_plan(plan) == []


def shared_plan() -> Plan:
    place = site(2, 1, 4, 2 * 500.0 + 2 * 750.0 + 1)
    jobs = [Job(f"p{n}", 1, SLOT_S * (1.0 + n % 3), gpu_share="1/4") for n in range(7)]
    return planned(Snapshot(START_S, START_S, SLOT_S, 12, place, tuple(jobs)))


@pytest.mark.parametrize("seed", range(10))
def test_bound_holds_for_every_way_to_share(seed: int) -> None:
    snapshot = tiny(random.Random(seed))
    plan = planned(snapshot)
    best = best_usd(snapshot)
    unit = unit_usd(snapshot)
    assert plan.bound * unit >= best - 1e-3
    assert plan.value * unit <= best + 1e-3
    assert plan.value * unit >= 0.6 * best  # jobs that start together, the longest first


def test_full_gpus_cost_one_gpu_each() -> None:
    """Fourteen sevenths fit where the power is that of two GPUs; a fifteenth job has to wait for an end."""
    place = site(1, 4, 7, 4 * 500.0 + 2 * 750.0 + 1)
    jobs = tuple(Job(f"p{n}", 1, 2.0 * SLOT_S, gpu_share="1/7") for n in range(15))
    plan = planned(Snapshot(START_S, START_S, SLOT_S, 6, place, jobs))
    first = [entry for entry in plan.assignments if entry.start_s == START_S and entry.mode == "fast"]
    assert (len(first), sum(entry.gpus for entry in first)) == (14, 2)
    assert next(zone.planned_w for zone in plan.zones if zone.zone == "s")[0] == 2_000 + 2 * 750


def test_a_running_gpu_with_room_takes_parts_at_no_power() -> None:
    """The limit carries one busy GPU, which runs: parts start beside it where they end before it, and nowhere else."""
    run = {
        "state": "running",
        "hall": "h",
        "node_type": "cut",
        "mode": "fast",
        "nodes": "c0",
        "start_s": START_S - 60.0,
    }
    jobs = (
        Job("r0", 1, 8.0 * SLOT_S, gpu_share="1/4", gpu_number=3, **run),
        Job("r1", 1, 6.0 * SLOT_S, gpu_share="1/4", gpu_number=3, **run),
        Job("short", 1, 2.0 * SLOT_S, gpu_share="1/4"),
        Job("long", 1, 20.0 * SLOT_S, gpu_share="1/4"),
    )
    snapshot = observed(Snapshot(START_S, START_S, SLOT_S, 8, site(1, 4, 4, 2_000.0 + 751.0), jobs))
    assert [job.gpus for job in snapshot.jobs] == [1, 0, 1, 1]
    plan = planned(snapshot)
    assert {entry.job_id: entry.beside for entry in plan.assignments} == {"r0": "", "r1": "r0", "short": "r0"}
    assert next(entry.code for entry in plan.waiting) == "power"
    assert max(next(zone.planned_w for zone in plan.zones if zone.zone == "s")) == 2_750


def test_parts_of_one_gpu_are_shed_together() -> None:
    run = {
        "state": "running",
        "hall": "h",
        "node_type": "cut",
        "mode": "fast",
        "nodes": "c0",
        "start_s": START_S - 60.0,
    }
    jobs = [Job(f"a{n}", 1, (4.0 + n) * SLOT_S, gpu_share="1/3", gpu_number=0, **run) for n in range(3)]
    jobs += [Job(f"b{n}", 1, (4.0 + n) * SLOT_S, gpu_share="1/3", gpu_number=1, weight=2.0, **run) for n in range(2)]
    plan = planned(observed(Snapshot(START_S, START_S, SLOT_S, 8, site(1, 2, 3, 1_000.0 + 800.0), tuple(jobs))))
    assert {entry.job_id for entry in plan.assignments} == {"b0", "b1"}
    assert {(entry.job_id, entry.code) for entry in plan.waiting} == {(f"a{n}", "shed") for n in range(3)}


def test_unknown_gpus_count_one_each_while_the_node_has_them() -> None:
    run = {
        "state": "running",
        "hall": "h",
        "node_type": "cut",
        "mode": "fast",
        "nodes": "c0",
        "start_s": START_S - 60.0,
    }
    jobs = tuple(Job(f"r{n}", 1, 4.0 * SLOT_S, gpu_share="1/4", **run) for n in range(6))
    snapshot = observed(Snapshot(START_S, START_S, SLOT_S, 8, site(1, 4, 4, 9_000.0), jobs))
    assert sum(job.gpus for job in snapshot.jobs) == 4
    assert snapshot.left_out == ()


def loose(watts: float, *jobs: Job) -> Snapshot:
    """One node of two GPUs in seven instances each, which the scheduler may give in any order."""
    place = site(1, 2, 7, watts, mig=True, fill=False)
    return observed(Snapshot(START_S, START_S, SLOT_S, 8, place, jobs))


def instance(name: str, slots: float, **fields) -> Job:
    run = {
        "state": "running",
        "hall": "h",
        "node_type": "cut",
        "mode": "fast",
        "nodes": "c0",
        "start_s": START_S - 60.0,
    }
    return Job(name, 1, slots * SLOT_S, gpu_share="1/7", **(run if fields.get("runs") else {}))


def test_parts_that_may_get_any_gpu_have_one_each() -> None:
    jobs = [instance(f"p{n}", 2.0) for n in range(4)]
    plan = planned(loose(1_000.0 + 2 * 750.0 + 1, *jobs))
    first = [entry for entry in plan.assignments if entry.start_s == START_S]
    assert [entry.gpus for entry in first] == [1, 1]
    runs = [instance("r0", 6.0, runs=True)]
    one = planned(loose(1_000.0 + 750.0 + 1, runs[0], instance("short", 3.0)))
    assert {entry.job_id: entry.start_s for entry in one.assignments} == {"r0": START_S, "short": START_S + 6 * SLOT_S}
    host = next(entry for entry in one.assignments if entry.job_id == "r0")
    none = tuple(replace(p, gpus_per_node=0) for p in host.placements)
    moved = replace(host, job_id="short", gpus=0, beside="r0", end_s=START_S + 3 * SLOT_S, placements=none)
    moved = replace(moved, running=False)
    wrong = fitted(replace(one, assignments=(host, moved)))
    assert [violation.kind for violation in verify_plan(wrong)] == ["share"]


def test_with_several_sites_parts_that_run_are_counted_and_others_wait() -> None:
    jobs = (instance("r0", 6.0, runs=True), instance("r1", 4.0, runs=True), instance("p", 1.0), Job("w", 1, 60.0))
    other = site(1, 2, 4, 5_000.0)
    names = msgspec.structs.replace(other, name="t", halls=())
    kept, left_out = without_parts(jobs, [loose(9_000.0).site, names])
    assert [job.job_id for job in kept] == ["w"]
    assert {(entry.job_id, entry.running, entry.gpus_on_nodes) for entry in left_out} == {
        ("r0", True, (1,)), ("r1", True, (1,)), ("p", False, ()),
    }  # fmt: skip
    with pytest.raises(Rejected, match="several sites"):
        make_multi_site_plan([loose(9_000.0, jobs[2])], RoundSettings(), 0.1, created_s=0, log=Log(quiet=True))


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ("1,1/7", ""), ("1,25%", ""), ("1,0.001", ""), ("1,1", "must be below 1"), ("1,0", "must be a share"),
        ("1,1/0", "must be a share"), ("2,1/7", "must be 1 beside gpu_share"), ("1,nan", "must be a share"),
    ],
)  # fmt: skip
def test_a_share_in_a_jobs_file_is_refused_in_one_line(tmp_path: Path, cells: str, why: str) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(f"job_id,duration_s,gpus,gpu_share\na,60,{cells}\n")
    if not why:
        jobs = read_jobs(path)
        (tmp_path / "again.csv").write_text(write_jobs(jobs))
        assert read_jobs(tmp_path / "again.csv") == jobs
        return
    with pytest.raises(Rejected, match=why) as refusal:
        read_jobs(path)
    assert "\n" not in str(refusal.value)
    assert read_job_list(path).left_out[0].job_id == "a"


def test_a_share_that_no_node_type_gives_leaves_its_job_out() -> None:
    whole = site(1, 2, 1, 9_000.0)
    found = fitting_jobs(whole, [Job("a", 1, 60.0, gpu_share="1/7")], "jobs")
    assert found.left_out[0].reason == (
        "gpu_share: '1/7': must be had on a node type that it may use: cut gives whole GPUs"
    )


def test_mixed_modes_on_a_gpu_are_counted_at_the_worst() -> None:
    run = {"state": "running", "hall": "h", "node_type": "cut", "nodes": "c0", "start_s": START_S - 60.0}
    jobs = (
        Job("r0", 1, 8.0 * SLOT_S, gpu_share="1/4", gpu_number=0, mode="fast", **run),
        Job("r1", 1, 6.0 * SLOT_S, gpu_share="1/4", gpu_number=0, mode="eco", **run),
        Job("p", 1, 2.0 * SLOT_S, gpu_share="1/4"),
    )
    snapshot = observed(Snapshot(START_S, START_S, SLOT_S, 8, site(1, 2, 4, 9_000.0), jobs))
    assert [(held.nodes, held.gpus, held.gpu_power_w) for held in snapshot.held] == [("c0", 1, 1_500.0)]
    plan = planned(snapshot)
    assert [entry.job_id for entry in plan.assignments] == ["p"]
    assert max(next(zone.planned_w for zone in plan.zones if zone.zone == "s")) == 1_000 + 1_000 + 750


def test_explanations_speak_of_parts() -> None:
    plan = shared_plan()
    guest = next(entry for entry in plan.assignments if entry.beside)
    lines = job_explanation(plan, guest.job_id, "plan.json").lines
    assert lines[1].startswith("  1/4 of a GPU, weight 1")
    assert any(f"beside {guest.beside}" in line for line in lines)
    tight = replace(plan.snapshot, site=site(2, 1, 4, 2 * 500.0 + 10.0))
    again = planned(tight)
    waits = next(entry for entry in again.waiting if entry.reason.startswith("takes"))
    assert "1/4 of a GPU beside" in waits.reason
    told = job_explanation(again, waits.job_id, "plan.json").lines
    assert told[0].startswith(f"{waits.job_id} waits: takes 1/4 of a GPU beside")


def test_a_second_round_keeps_hosts_and_guests() -> None:
    first = shared_plan()
    again = planned(first.snapshot, previous=first)
    assert [(e.job_id, e.beside) for e in again.assignments] == [(e.job_id, e.beside) for e in first.assignments]
    assert sum(Fraction(1, 4) for entry in again.assignments if entry.start_s == START_S) == Fraction(7, 4)
