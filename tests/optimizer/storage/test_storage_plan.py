"""A site with a battery, a chilled-water tank and a loop with inertia plans through a hot curtailment, checked."""

import itertools
import json
import subprocess
import sys

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.plan.plan import Plan, read_plan, write_plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.store import open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_optimizer.leases.budgets import lease_budgets
from powerhall_optimizer.physics.plan_loads import loads_of, plan_loads, zone_budgets
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.placer import PlacedSchedule
from powerhall_optimizer.planning.explanation import explain_lines
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.planning.site_storage import SiteStorage
from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.problem.site_problem import build_problem
from powerhall_optimizer.report.page import report_html
from powerhall_optimizer.round.publish import plan_points
from powerhall_optimizer.shed.ladder import ladder
from powerhall_optimizer.storage.state import with_storage_content
from powerhall_optimizer.verify.plan import verify_plan
from rigs.stores import SITE, SLOTS, START_S, STORES, doing, entry_of, kinds, plan_of, snapshot_of, storage_with

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Plan:
    return plan_of(snapshot_of(SITE, tmp_path_factory.mktemp("plain")))


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return plan_of(snapshot_of(SITE + STORES, tmp_path_factory.mktemp("stores")), 12.0)


@pytest.fixture(scope="module")
def idle_plan(tmp_path_factory) -> Plan:
    return plan_of(snapshot_of(SITE + STORES, tmp_path_factory.mktemp("idle"), jobs=()), 0.5)


def test_stores_carry_more_work_through_a_hot_curtailment_than_any_plan_without_them(plan, plain):
    assert verify_plan(plan) == verify_plan(plain) == []
    assert plan.value <= plan.bound
    assert plan.value > plain.bound, "better than the best that is possible without stores"
    assert plan.gap < 0.08


def test_the_battery_delivers_in_the_curtailment_and_the_meter_stays_within_the_budget(plan):
    battery = entry_of(plan, "bess")
    assert sum(battery.power_w[36:60]) > 20 * 20_000
    loads, budget = plan_loads(plan), zone_budgets(plan.snapshot)["dam"]
    assert (loads.zone_w["dam"] <= budget + 0.5).all()
    assert loads.halls["a"].facility_w[36:60].max() > budget[36:60].min() * 1.1
    assert battery.stored_j[-1] >= plan.snapshot.site.storages[0].end_j


def test_tank_and_loop_take_heat_beyond_the_capacity_of_the_plant_when_it_is_hot(plan):
    overview = plan_loads(plan).halls["a"]
    heat = overview.heat_w["all"] + overview.stored_w["all"]
    assert (heat > overview.capacity_w["all"] + 1e3).any()
    assert (overview.heat_w["all"] <= overview.capacity_w["all"] + 0.5).all()
    loop = entry_of(plan, "loop")
    assert 40.0 < max(loop.temp_c) <= 45.0
    assert loop.temp_c[-1] <= loop.temp_c[0] + 1e-6


def test_a_power_limit_below_what_a_store_does_is_broken(plan, change):
    watts = entry_of(plan, "bess").power_w
    assert kinds(storage_with(plan, change, "bess", discharge_w=max(watts) - 1.0)) == {"storage_power"}
    assert kinds(storage_with(plan, change, "bess", charge_w=-min(watts) - 1.0)) == {"storage_power"}


def test_a_content_outside_its_limits_is_broken(idle_plan, change):
    worked = doing(idle_plan, "bess", {0: 10_000, 1: -20_000})
    held = entry_of(worked, "bess").stored_j
    assert min(held) < idle_plan.snapshot.site.storages[0].start_j < max(held)
    paid = {"value", "bound"}
    assert kinds(worked) <= paid
    assert kinds(storage_with(worked, change, "bess", min_j=min(held) + 2.0)) - paid == {"storage_content"}
    assert kinds(storage_with(worked, change, "bess", capacity_j=max(held) - 2.0)) - paid == {"storage_content"}


def test_a_store_that_ends_too_empty_is_broken(plan):
    last = entry_of(plan, "bess").power_w[-1]
    assert kinds(doing(plan, "bess", {SLOTS - 1: last + 20_000})) == {"storage_end"}


def test_a_supply_or_a_return_above_its_limit_is_broken(plan, change):
    loop = entry_of(plan, "loop")
    assert kinds(storage_with(plan, change, "loop", max_supply_c=max(loop.temp_c) - 0.01)) == {"storage_temperature"}
    assert kinds(storage_with(plan, change, "loop", max_return_c=max(loop.temp_c) + 1.0)) == {"storage_temperature"}
    assert kinds(storage_with(plan, change, "loop", max_return_c=max(loop.temp_c) + 20.0)) == set()


def test_a_content_or_a_temperature_that_does_not_follow_from_the_powers_is_broken(plan):
    for name, fields in (("bess", {"stored_j": 5}), ("loop", {"temp_c": 0.01})):
        entry = entry_of(plan, name)
        (field, step), *_ = fields.items()
        values = list(getattr(entry, field))
        values[7] += step
        entries = tuple(replace(e, **{field: tuple(values)}) if e.name == name else e for e in plan.storages)
        assert kinds(replace(plan, storages=entries)) == {"storage_state"}


def test_power_fed_back_into_the_grid_is_broken(idle_plan):
    assert verify_plan(idle_plan) == []
    back = doing(idle_plan, "bess", {0: 60_000, 1: -60_000, 2: -20_000})
    assert kinds(back) == {"storage_export"}
    assert kinds(doing(idle_plan, "bess", {0: 10_000, 1: -20_000})) <= {"value", "bound"}


def test_more_cooling_than_there_is_heat_is_broken(idle_plan, change):
    strong = storage_with(idle_plan, change, "tank", discharge_w=50e3)
    found = kinds(doing(strong, "tank", {0: 40_000, 1: -20_000, 2: -21_000}))
    assert found == {"plants", "storage_export"}, "the plants then carry other heat"


def test_a_store_that_is_missing_or_unknown_or_planned_for_other_slots_is_broken(plan):
    assert kinds(replace(plan, storages=())) == {"storage"}
    assert kinds(replace(plan, storages=plan.storages[:2])) == {"storage"}
    other = replace(plan.storages[0], name="other")
    assert kinds(replace(plan, storages=(*plan.storages, other))) == {"storage"}
    short = replace(plan.storages[0], power_w=plan.storages[0].power_w[:-1])
    assert kinds(replace(plan, storages=(short, *plan.storages[1:]))) == {"storage"}


def test_without_what_the_stores_deliver_the_budgets_are_broken(plan):
    nothing = dict.fromkeys(range(SLOTS), 0)
    assert kinds(doing(plan, "bess", nothing)) == {"power_site"}
    assert "cooling" in kinds(doing(doing(plan, "tank", nothing), "loop", nothing))
    full = dict.fromkeys(range(36, 60), -60_000)
    assert "power_site" in kinds(doing(plan, "bess", full))


def test_a_dispatch_that_costs_more_than_the_plan_says_is_caught(idle_plan):
    worse = doing(idle_plan, "bess", {5: 1000, 6: -2000})
    assert {v.kind for v in verify_plan(worse)} == {"value"}


def test_the_bound_is_recomputed_from_the_value_of_stored_energy(plan):
    assert plan.certificate is not None
    assert set(plan.certificate.stored) == {"bess", "tank", "loop"}
    without = replace(plan, certificate=replace(plan.certificate, stored={}))
    assert kinds(without) == {"bound"}
    short = {"bess": plan.certificate.stored["bess"][:-1]}
    assert kinds(replace(plan, certificate=replace(plan.certificate, stored=short))) == {"certificate"}


def test_a_battery_keeps_running_jobs_alive_that_would_be_shed_without_it(tmp_path):
    since_s = START_S - 600
    place = {"state": "running", "hall": "a", "mode": "full", "node_type": "h100", "start_s": float(since_s)}
    jobs = tuple(Job(f"r{i}", 32, 6 * 3600.0, since_s, nodes=f"a-r-k0{i}-n[01-04]", **place) for i in range(1, 4))
    deep = SITE.replace("reduce_percent = 50", "reduce_percent = 68")
    without = plan_of(snapshot_of(deep, tmp_path, jobs=jobs), 1.0)
    battery = STORES.split("[[tanks]]", maxsplit=1)[0].replace('"bess"', '"bess"\nstart_share = 0.9')
    kept = plan_of(snapshot_of(deep + battery, tmp_path, jobs=jobs), 1.0)
    assert verify_plan(without) == verify_plan(kept) == []
    assert {w.code for w in without.waiting} == {"shed"}
    assert kept.waiting == ()


def test_a_battery_under_a_feed_relieves_the_feed(tmp_path):
    tight = SITE.replace('zone = "dam"', 'zone = "main"').replace("reduce_percent = 50", 'power_limit = "40 kW"')
    battery = STORES.split("[[tanks]]", maxsplit=1)[0] + 'at = "main"\n'
    plan = plan_of(snapshot_of(tight + battery, tmp_path), 2.0)
    assert verify_plan(plan) == []
    loads = plan_loads(plan)
    assert loads.zone_w["main"][36:60].max() <= 40_000.5
    assert loads.zone_w["a"][36:60].min() > 50_000
    assert kinds(doing(plan, "bess", dict.fromkeys(range(SLOTS), 0))) >= {"power_feed"}


def test_a_battery_keeps_the_ramp_limits_of_the_site(tmp_path):
    slow = SITE.replace(
        'power_limit = "140 kW"', 'power_limit = "140 kW"\nramp_down = "6 kW/min"\nramp_up = "5 kW/min"'
    )
    plan = plan_of(snapshot_of(slow + STORES.split("[[tanks]]", maxsplit=1)[0], tmp_path), 2.0)
    assert verify_plan(plan) == []
    watts = entry_of(plan, "bess").power_w
    assert max(watts) > 10_000, "it works in the curtailment nevertheless"
    steps = [after - before for before, after in itertools.pairwise(watts)]
    assert min(steps) >= -25_000
    assert max(steps) <= 30_000
    slot = watts.index(max(watts))
    jump = doing(plan, "bess", {slot: watts[slot] - 40_000})
    assert "storage_ramp" in kinds(jump)


def test_storage_content_comes_from_the_meter_else_the_last_plan_else_the_site(plan, tmp_path):
    s = plan.snapshot
    store = open_store(f"sqlite:///{tmp_path}/s.db")
    assert with_storage_content(s, None, store, START_S).stored_j == {}
    later = replace(s, start_s=START_S + 40 * 300)
    foreseen = with_storage_content(later, plan, store, later.start_s).stored_j
    assert foreseen == {entry.name: float(entry.stored_j[40]) for entry in plan.storages}
    assert with_storage_content(replace(s, start_s=START_S + 90), plan, store, START_S + 90).stored_j == {}
    assert with_storage_content(s, plan, store, START_S).stored_j == s.stored_j
    now_ms = later.start_s * 1000
    for device, point, value, quality in (
        ("bess", "soc_percent", 25.0, 1.0),
        ("loop", "supply_temp_c", 42.5, 1.0),
        ("tank", "soc_percent", 80.0, 0.0),
    ):
        tags = {"site": "dam", "hall": "", "device": device, "point": point}
        store.write(encode(Point("facility", tags, {"value": value, "quality": quality}, now_ms)))
    measured = with_storage_content(later, plan, store, later.start_s + 1.0).stored_j
    store.close()
    assert measured["bess"] == 0.25 * 200 * 3.6e6
    assert measured["loop"] == pytest.approx(2.5 * 4.18e7)
    assert measured["tank"] == foreseen["tank"], "a reading of bad quality counts nothing"


def test_a_store_emptier_than_its_least_is_refilled_and_never_makes_a_plan_impossible(tmp_path):
    text = SITE + STORES.split("[[tanks]]", maxsplit=1)[0]
    snapshot = snapshot_of(text, tmp_path, stored_j={"bess": 0.02 * 200 * 3.6e6})
    plan = plan_of(snapshot, 2.0)
    assert verify_plan(plan) == []
    held = entry_of(plan, "bess").stored_j
    assert held[0] == int(0.02 * 200 * 3.6e6)
    assert held[-1] == pytest.approx(0.5 * 200 * 3.6e6, rel=1e-3)


@pytest.mark.parametrize("step", ["covering_dispatch", "settled_dispatch", "solve_with_storage"])
def test_a_fault_in_the_stores_program_leaves_a_verified_plan(tmp_path, monkeypatch, capsys, step):
    def fault(*_args: object) -> None:
        raise RuntimeError("the program broke")

    monkeypatch.setattr(f"powerhall_optimizer.planning.storage_alternation.{step}", fault)
    snapshot = snapshot_of(SITE + STORES, tmp_path)
    plan = make_plan(snapshot, RoundSettings(workers=1), 1.0, created_s=START_S, log=Log())
    assert verify_plan(plan) == []
    assert plan.assignments
    assert plan.status == ("fallback" if step == "solve_with_storage" else "feasible")
    assert "the program broke" in capsys.readouterr().err


def test_what_if_a_battery_were_larger(plan):
    site = what_if(plan.snapshot, "bess.size=+50%").site
    before, after = plan.snapshot.site.storages[0], site.storages[0]
    assert (after.capacity_j, after.discharge_w, after.start_j) == pytest.approx(
        (before.capacity_j * 1.5, before.discharge_w * 1.5, before.start_j * 1.5)
    )
    assert site.storages[1:] == plan.snapshot.site.storages[1:]
    for text, said in (("bess.size=-100%", "above -100%"), ("bess.size=5 MW", "a share"), ("b.size=+5%", "a store of")):
        with pytest.raises(Rejected, match=said):
            what_if(plan.snapshot, text)


def test_a_dispatch_without_a_settling_step_is_cut_to_the_load(tmp_path):
    snapshot = snapshot_of(SITE + STORES, tmp_path, jobs=())
    conditions = SiteConditions(snapshot)
    stores = SiteStorage(snapshot, build_problem(snapshot, conditions), conditions, "glop", Log(quiet=True))
    full = tuple((int(s.discharge_w),) * 6 + (-int(s.charge_w),) * 20 + (0,) * (SLOTS - 26) for s in stores.model.units)
    placed = PlacedSchedule(Schedule.empty(0), {}, {})
    cut = stores._trimmed(full, stores._ceilings(build_problem(snapshot, conditions), placed))
    loads = loads_of(snapshot, (), stores.model.plans(cut))
    assert loads.zone_w["dam"].min() >= -0.5
    assert loads.halls["a"].heat_w["all"].min() >= -0.5
    assert max(cut[0]) > 10_000
    assert stores.model.meets_end_content(cut)


@pytest.mark.parametrize("solver", ["highs", "pdlp"])
def test_other_solvers_of_the_program_plan_as_well(tmp_path, solver, plain):
    snapshot = snapshot_of(SITE + STORES, tmp_path)
    settings = RoundSettings(workers=1, lp_solver=solver)
    plan = make_plan(snapshot, settings, 2.0, created_s=START_S, log=Log(quiet=True))
    assert verify_plan(plan) == []
    assert plan.status == "feasible"
    assert plan.value > plain.value


def test_a_coarse_grid_of_far_starts_and_stores_go_together(tmp_path, plain):
    snapshot = snapshot_of(SITE + STORES, tmp_path)
    settings = RoundSettings(workers=1, coarse=((3600.0, 900.0), (14400.0, 3600.0)))
    plan = make_plan(snapshot, settings, 4.0, created_s=START_S, log=Log(quiet=True))
    assert verify_plan(plan) == []
    assert plan.status == "feasible"
    assert plan.value > plain.value


def test_silent_nodes_and_stores_go_together(tmp_path):
    snapshot = snapshot_of(SITE + STORES, tmp_path, stale_nodes=("a-r-k01-n01", "a-r-k01-n02"))
    plan = plan_of(snapshot, 1.0)
    assert verify_plan(plan) == []
    assert plan.status == "feasible"


def test_leases_and_the_shed_ladder_count_what_stores_deliver(plan):
    s = plan.snapshot
    slot = max(range(36, 60), key=lambda i: entry_of(plan, "bess").power_w[i])
    at_s = s.start_s + slot * 300 + 1
    site = next(b for b in lease_budgets(plan, at_s, at_s + 200) if b.zone == "dam")
    bare = replace(plan, storages=())
    alone = next(b for b in lease_budgets(bare, at_s, at_s + 200) if b.zone == "dam")
    assert site.budget_w - alone.budget_w == pytest.approx(entry_of(plan, "bess").power_w[slot], abs=1e4)
    assert ladder(plan, at_s).power_w == pytest.approx(plan_loads(plan).zone_w["dam"][slot], abs=1.0)


def test_report_store_and_explanations_show_the_stores(plan):
    page = report_html(plan)
    assert "Batteries, tanks and loops" in page
    assert "bess: battery at dam" in page
    points = [p for p in plan_points(plan) if p.measurement == "plan_storage"]
    assert len(points) == 3 * SLOTS
    assert {p.tags["storage"] for p in points} == {"bess", "tank", "loop"}
    assert all(0 <= p.fields["soc_percent"] <= 100 for p in points)
    assert any(40 < p.fields["temp_c"] <= 45 for p in points if p.tags["storage"] == "loop")
    waiting = plan.waiting[0].job_id
    assert any("waits" in line for line in explain_lines(plan, waiting))


def test_the_checker_of_stores_loads_no_solver(plan, tmp_path):
    write_plan(plan, tmp_path / "plan.json")
    code = (
        "import sys; from powerhall.plan.plan import read_plan;"
        "from powerhall_optimizer.verify.plan import verify_plan;"
        f"found = verify_plan(read_plan({str(tmp_path / 'plan.json')!r}));"
        "print(found, [m for m in ('numba', 'ortools', 'scipy', 'llvmlite') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_a_round_on_the_example_is_verified_and_shows_its_stores(root, tmp_path):
    command = [sys.executable, str(root / "examples" / "storage" / "prepare.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    command = [sys.executable, "-c", "from powerhall_optimizer.entry import main; raise SystemExit(main())", "round"]
    command += ["--site", "site.toml", "--jobs", "jobs.csv", "--start", "2026-07-15T12:00Z", "--seconds", "3", "--json"]
    command += ["--report", "r.html"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["value"] <= outcome["bound"]
    plan = read_plan(tmp_path / "plan.json")
    assert {entry.name for entry in plan.storages} == {"bess", "tank", "loop"}
    assert plan.status == "feasible", "planned by the solver, not by a fallback"
    assert "Batteries, tanks and loops" in (tmp_path / "r.html").read_text()
