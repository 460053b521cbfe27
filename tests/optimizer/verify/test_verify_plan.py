"""The checker refuses a plan in which any one limit is broken by hand, and names that limit."""

import re
import subprocess
import sys

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.plan.plan import Placement, Waiting, read_plan, write_plan
from powerhall_optimizer.cli import main
from powerhall_optimizer.physics.plan_loads import budget_w, plan_loads
from powerhall_optimizer.verify.plan import verify_plan

replace = msgspec.structs.replace


def kinds(plan) -> set[str]:
    return {violation.kind for violation in verify_plan(plan)}


def site_with(site, zone: str, **fields):
    """The site with one zone's fields changed."""
    if zone == site.name:
        return replace(site, **fields)
    if zone in (feed.zone for feed in site.feeds):
        return replace(site, feeds=tuple(replace(f, **fields) if f.zone == zone else f for f in site.feeds))

    def rows(hall):
        return tuple(
            replace(row, **fields)
            if row.zone == zone
            else replace(row, racks=tuple(replace(r, **fields) if r.zone == zone else r for r in row.racks))
            for row in hall.rows
        )

    halls = tuple(replace(h, **fields) if h.zone == zone else replace(h, rows=rows(h)) for h in site.halls)
    return replace(site, halls=halls)


def test_a_plan_of_the_planner_is_verified_and_uses_its_budgets(plan):
    assert verify_plan(plan) == []
    assert len(plan.assignments) > 40
    assert plan.value > 0
    assert plan.bound >= plan.value
    site_w = plan_loads(plan).zone_w["phx"]
    assert (site_w / budget_w(plan.snapshot, "phx")).max() > 0.9


@pytest.mark.parametrize(
    ("zone", "level"),
    [("phx", "site"), ("A", "feed"), ("A1", "feed"), ("a", "hall"), ("a/r1", "row"), ("a/r1/k01", "rack")],
)
def test_a_power_limit_one_watt_below_the_plan_is_broken(plan, change, zone, level):
    most_w = float(plan_loads(plan).zone_w[zone].max())
    site = replace(plan.snapshot.site, budgets={})
    tight = change(plan, site=site_with(site, zone, power_limit_w=most_w - 1))
    assert f"power_{level}" in kinds(tight)
    assert any(v.where == zone for v in verify_plan(tight))
    assert f"power_{level}" not in kinds(change(plan, site=site_with(site, zone, power_limit_w=most_w)))


def test_a_budget_that_falls_for_one_slot_is_broken(plan, change):
    loads = plan_loads(plan).zone_w["b"]
    slot = int(loads.argmax())
    s = plan.snapshot
    at = float(s.start_s + slot * s.slot_s)
    from powerhall.timeseries import Series

    dip = Series((0.0, at + 10, at + 20), (1e9, float(loads[slot]) - 1, 1e9))
    found = verify_plan(change(plan, site=replace(s.site, budgets={**s.site.budgets, "b": dip})))
    assert [(v.kind, v.where) for v in found] == [("power_hall", "b")]


@pytest.mark.parametrize(("hall", "medium"), [("a", "liquid"), ("a", "air"), ("b", "all")])
def test_a_cooling_capacity_below_the_heat_is_broken(plan, change, hall, medium):
    heat_w = float(plan_loads(plan).halls[hall].heat_w[medium].max())
    site = plan.snapshot.site
    plants = tuple(replace(p, capacity_w=heat_w - 1) if p.serves == medium else p for p in site.hall(hall).plants)
    found = verify_plan(change(plan, site=site_with(site, hall, plants=plants)))
    assert f"{hall} ({medium})" in {v.where for v in found if v.kind == "cooling"}


def edited(plan, number: int, **fields):
    entries = list(plan.assignments)
    entries[number] = replace(entries[number], **fields)
    return replace(plan, assignments=tuple(entries))


def test_two_jobs_on_the_same_gpus_are_found(plan):
    whole = [n for n, a in enumerate(plan.assignments) if a.gpus == 8 and a.node_type == "h100"]
    for other in whole[1:]:
        first, second = plan.assignments[whole[0]], plan.assignments[other]
        if first.hall == second.hall and second.start_s < first.end_s:
            assert "gpus" in kinds(edited(plan, other, placements=first.placements))
            return
    pytest.fail("the plan has no two jobs at once in a hall")


def test_a_job_outside_its_halls_is_found(plan, change):
    job = next(j for j in plan.snapshot.jobs if j.job_id == plan.assignments[0].job_id)
    other = {"a": "b", "b": "a"}[plan.assignments[0].hall]
    jobs = tuple(replace(j, halls=(other,)) if j is job else j for j in plan.snapshot.jobs)
    assert "eligibility" in kinds(change(plan, jobs=jobs))


def test_a_job_on_the_wrong_node_type_is_found(plan, change):
    first = plan.assignments[0]
    other = {"h100": "a100", "a100": "h100"}[first.node_type]
    jobs = tuple(replace(j, node_types=(other,)) if j.job_id == first.job_id else j for j in plan.snapshot.jobs)
    assert "eligibility" in kinds(change(plan, jobs=jobs))
    assert "eligibility" in kinds(edited(plan, 0, node_type=other))


def test_a_job_away_from_the_site_of_its_data_is_found(plan, change):
    first = plan.assignments[0].job_id
    jobs = tuple(replace(j, sites=("fra",)) if j.job_id == first else j for j in plan.snapshot.jobs)
    assert "residency" in kinds(change(plan, jobs=jobs))


def test_a_gang_that_is_not_whole_is_found(plan):
    number = next(n for n, a in enumerate(plan.assignments) if len(a.placements) > 1)
    assert "gang" in kinds(edited(plan, number, placements=plan.assignments[number].placements[:-1]))
    assert "gang" in kinds(edited(plan, number, gpus=1))


def test_a_small_job_spread_over_nodes_is_found(plan):
    number = next(n for n, a in enumerate(plan.assignments) if a.gpus == 2 and a.hall == "a")
    rack = plan.assignments[number].placements[0].rack
    stem = rack.replace("/", "-")
    assert "gang" in kinds(edited(plan, number, placements=(Placement(rack, f"{stem}-n[01-02]", 1),)))


def test_nodes_that_do_not_exist_are_found(plan):
    rack = plan.assignments[0].placements[0].rack
    ghosts = (Placement(rack, "ghost1", plan.assignments[0].gpus),)
    assert "gang" in kinds(edited(plan, 0, placements=ghosts))


def test_a_job_cut_short_or_early_is_found(plan):
    first = plan.assignments[0]
    assert "duration" in kinds(edited(plan, 0, end_s=first.end_s - 300))
    number = next(n for n, a in enumerate(plan.assignments) if a.start_s > plan.snapshot.start_s)
    late = plan.assignments[number]
    jobs = {job.job_id: job for job in plan.snapshot.jobs}
    early = edited(plan, number, start_s=plan.snapshot.start_s, end_s=late.end_s - late.start_s + plan.snapshot.start_s)
    if jobs[late.job_id].submit_s > plan.snapshot.start_s:
        assert "window" in kinds(early)
    assert "window" in kinds(edited(plan, 0, start_s=first.start_s + 1, end_s=first.end_s + 1))


def test_a_job_that_ends_after_its_deadline_is_found(plan, change):
    first = plan.assignments[0]

    def with_deadline(deadline_s):
        jobs = (replace(j, deadline_s=deadline_s) if j.job_id == first.job_id else j for j in plan.snapshot.jobs)
        return change(plan, jobs=tuple(jobs))

    assert kinds(with_deadline(first.end_s - 1.0)) == {"deadline"}
    assert "deadline" not in kinds(with_deadline(float(first.end_s)))


def test_a_start_before_the_earliest_time_is_found(plan, change):
    first = plan.assignments[0]
    jobs = (replace(j, earliest_s=first.start_s + 1.0) if j.job_id == first.job_id else j for j in plan.snapshot.jobs)
    assert kinds(change(plan, jobs=tuple(jobs))) == {"window"}


@pytest.mark.parametrize("field", ["price_per_mwh", "carbon_g_per_kwh"])
def test_other_prices_or_carbon_change_the_value_that_is_due(plan, change, field):
    objective = replace(plan.snapshot.objective, carbon_usd_per_t=100.0)
    dearer = change(plan, objective=objective, **{field: (300.0,) * plan.snapshot.slots})
    assert kinds(dearer) == {"value"}


def test_a_draw_below_the_mode_is_found(plan):
    assert "mode" in kinds(edited(plan, 0, gpu_power_w=300.0))
    assert "mode" in kinds(edited(plan, 0, mode="turbo"))


def test_a_job_that_is_forgotten_or_decided_twice_is_found(plan):
    assert "jobs" in kinds(replace(plan, assignments=plan.assignments[1:]))
    assert "jobs" in kinds(replace(plan, assignments=(*plan.assignments, plan.assignments[0])))
    twice = Waiting(plan.assignments[0].job_id, "capacity", "")
    assert "jobs" in kinds(replace(plan, waiting=(*plan.waiting, twice)))


def test_a_start_on_a_node_that_is_down_or_stale_is_found(plan, change):
    node = plan.assignments[0].placements[0].nodes.split(",")[0]
    if "[" in node:
        from powerhall.hostlist import expand

        node = expand(plan.assignments[0].placements[0].nodes)[0]
    assert "gpus" in kinds(change(plan, down_nodes=(node,)))
    assert "gpus" in kinds(change(plan, stale_nodes=(node,)))


def test_a_running_job_that_is_moved_or_stopped_is_found(plan, change):
    first = next(a for a in plan.assignments if a.start_s == plan.snapshot.start_s)
    other = {"a": "b", "b": "a"}[first.hall]
    jobs = tuple(
        replace(j, state="running", hall=other, mode=first.mode, start_s=0.0) if j.job_id == first.job_id else j
        for j in plan.snapshot.jobs
    )
    assert "running" in kinds(change(plan, jobs=jobs))
    waiting = plan.waiting[0].job_id
    jobs = tuple(
        replace(j, state="running", hall="a", mode="full", start_s=0.0) if j.job_id == waiting else j
        for j in plan.snapshot.jobs
    )
    assert "running" in kinds(change(plan, jobs=jobs))


def test_a_changed_snapshot_value_bound_or_zone_is_found(plan):
    assert "identity" in kinds(replace(plan, snapshot=replace(plan.snapshot, slots=143)))
    assert "value" in kinds(replace(plan, value=plan.value + 1))
    assert "bound" in kinds(replace(plan, bound=plan.bound - 1))
    zone = replace(plan.zones[0], planned_w=tuple(w - 2 for w in plan.zones[0].planned_w))
    assert "zones" in kinds(replace(plan, zones=(zone, *plan.zones[1:])))


def test_the_command_checks_a_file_and_prints_its_violations(plan, tmp_path, capsys, monkeypatch):
    path = tmp_path / "plan.json"
    write_plan(plan, path)
    monkeypatch.setattr(sys, "argv", ["powerhall-optimizer", "verify", str(path)])
    assert main() == 0
    assert "verified" in capsys.readouterr().out
    write_plan(edited(read_plan(path), 0, gpu_power_w=1.0), path)
    assert main() == 1
    assert "mode: " in capsys.readouterr().out


def test_a_site_that_has_a_hall_twice_or_an_unknown_node_type_is_refused(plan, change):
    site = plan.snapshot.site
    assert kinds(change(plan, site=replace(site, halls=(*site.halls, site.halls[0])))) == {"site"}
    assert kinds(change(plan, site=site_with(site, "a/r1/k01", node_type="b20"))) == {"site"}


def test_a_node_type_that_is_not_called_as_its_racks_name_it_is_refused(plan, change):
    """Options were looked up by the one name and capacities by the other."""
    site = plan.snapshot.site
    called = {key: replace(kind, name="gn04") for key, kind in site.node_types.items()}
    assert kinds(change(plan, site=replace(site, node_types=called))) == {"site"}


def test_every_kind_of_violation_is_documented(root):
    text = "".join(path.read_text() for path in (root / "optimizer/powerhall_optimizer/verify").glob("*.py"))
    named = set(re.findall(r'Violation\(\s*"(\w+)"', text))
    named |= set(re.findall(r'\bover\(case, "(\w+)"', text))
    named |= {f"power_{level}" for level in ("site", "feed", "hall", "row", "rack")} | {"ramp_up", "ramp_down"}
    assert {"cooling", "residency", "deadline"} < named
    guide = (root / "docs/guide/optimizer.md").read_text()
    assert [kind for kind in sorted(named) if f"`{kind}`" not in guide] == []


def test_every_column_of_a_jobs_file_is_documented(root):
    guide = (root / "docs/guide/optimizer.md").read_text()
    assert [f.name for f in msgspec.structs.fields(Job) if f"`{f.name}`" not in guide] == []


def test_the_checker_loads_no_solver_and_no_numba():
    code = (
        "import sys, powerhall_optimizer.verify.plan, powerhall_optimizer.verify.value;"
        "print([m for m in ('numba', 'ortools', 'scipy', 'llvmlite') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("gpu_power_w", [1e308, 1e6, 0.0, -1.0])
def test_a_draw_that_is_not_the_modes_is_refused(plan, gpu_power_w):
    assert kinds(edited(plan, 0, gpu_power_w=gpu_power_w)) & {"mode", "number"}


def test_a_job_that_starts_is_not_shed_as_well(plan):
    started = next(a for a in plan.assignments if not a.running)
    shed = Waiting(started.job_id, "shed", "")
    assert "jobs" in kinds(replace(plan, waiting=(*plan.waiting, shed)))
