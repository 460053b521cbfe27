"""A limit at the meter by the true curves: a site with strong fans in hot air plans as much as its limit carries."""

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.physics.plants.fixed import Fixed
from powerhall.physics.plants.kinds import _KINDS
from powerhall.plan.plan import Plan, Snapshot, read_plan, write_plan
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.plan import verify_plan
from powerhall_optimizer.verify.value import value_and_bound

START_S = 1_700_000_100
SITE = """
[site]
name = "mesa"
power_limit = "12 MW"
[node_types.b200]
gpu = "B200"
gpus = 8
idle_power = "2.6 kW"
max_power = "14.3 kW"
safe_cap = "6 kW"
liquid_fraction = 0.80
modes = [{ name = "p1000", gpu_power = "1780 W", speed = 1.00, gpu_power_limit = "1000 W" }]
[[halls]]
name = "hall1"
power_limit = "3.6 MW"
rows = [{ name = "a", racks = [{ node_type = "b200", name = "r", count = 64, nodes = 4 }] }]
[[halls.cooling]]
name = "dry1"
kind = "dry_cooler"
serves = "liquid"
capacity = "3.2 MW"
supply_temp = "45 degC"
rated_ambient = "35 degC"
fan_power = "90 kW"
pump_power = "40 kW"
[[halls.cooling]]
name = "ch1"
kind = "tower_chiller"
serves = "air"
capacity = "900 kW"
supply_temp = "20 degC"
cop = 6.0
fan_power = "15 kW"
pump_power = "10 kW"
"""
SLOTS = 24


def snapshot(tmp_path, limit: str, dry_c: float = 42.0, **fields: object) -> Snapshot:
    path = tmp_path / "site.toml"
    path.write_text(SITE.replace("12 MW", limit))
    jobs = tuple(Job(f"j{number:03}", 8, 7200.0) for number in range(80))
    inputs = {"dry_bulb_c": (dry_c,) * SLOTS, "wet_bulb_c": (21.0,) * SLOTS, "jobs": jobs} | fields
    return Snapshot(taken_s=START_S, start_s=START_S, slot_s=300, slots=SLOTS, site=read_site(path)[0], **inputs)


def planned(inputs: Snapshot, seconds: float = 3.0) -> Plan:
    plan = make_plan(inputs, RoundSettings(), seconds, created_s=START_S, log=Log(quiet=True))
    assert verify_plan(plan) == []
    return plan


@pytest.mark.parametrize(("dry_c", "limit"), [(42.0, "1355 kW"), (34.0, "1700 kW")])
def test_a_limit_that_a_plan_keeps_costs_nothing(tmp_path, dry_c, limit):
    """The plan under a far limit keeps a nearer one, so that the optimum under that is as high, and its bound."""
    far = planned(snapshot(tmp_path, "12 MW" if dry_c > 40 else "1690 kW", dry_c))
    most_w = max(zone.planned_w for zone in far.zones if zone.zone == "mesa")
    assert max(most_w) <= float(limit.split()[0]) * 1e3
    near = planned(snapshot(tmp_path, limit, dry_c))
    assert near.bound >= far.value
    assert near.value >= 0.975 * far.value
    assert near.gap <= 0.03


def test_values_of_two_limits_are_comparable_under_a_tariff(tmp_path):
    """The energy of a job is valued apart from limits: the same decisions are worth the same under both."""
    fields = {"price_per_mwh": (400.0,) * SLOTS}
    plan = planned(snapshot(tmp_path, "1355 kW", **fields), 1.0)
    wide = snapshot(tmp_path, "12 MW", **fields)
    moved = msgspec.structs.replace(plan, snapshot=wide)
    assert value_and_bound(moved)[0] == value_and_bound(plan)[0] == plan.value


def test_a_plant_whose_power_is_not_convex_costs_tightness_and_no_truth(tmp_path, monkeypatch):
    """A fan that switches to its second stage at 60 % load: the plan holds, and the bound is above its value."""

    class Staged(Fixed):
        name = "staged"
        convex = False

        def power_w(self, plant, heat_w, weather):
            load = heat_w / plant.capacity_w
            return plant.pump_power_w + plant.fan_power_w * (0.3 if load <= 0.6 else 0.8 + 0.5 * (load - 0.6))

    from powerhall.physics.plants import kinds

    monkeypatch.setattr(kinds, "PLANT_KINDS", {kind.name: kind for kind in (*_KINDS, Staged())})
    inputs = snapshot(tmp_path, "1355 kW")
    hall = inputs.site.halls[0]
    plants = (msgspec.structs.replace(hall.plants[0], kind="staged", capacity_w=1.2e6), hall.plants[1])
    site = msgspec.structs.replace(inputs.site, halls=(msgspec.structs.replace(hall, plants=plants),))
    plan = planned(msgspec.structs.replace(inputs, site=site))
    assert plan.assignments
    assert plan.value <= plan.bound


def test_a_plan_of_version_1_is_read_and_its_bound_is_not_believed(tmp_path):
    plan = planned(snapshot(tmp_path, "1355 kW"), 1.0)
    old = msgspec.structs.replace(plan, version=1, bound=plan.value - 1, certificate=None)
    write_plan(old, tmp_path / "old.json")
    assert verify_plan(read_plan(tmp_path / "old.json")) == []
    over = msgspec.structs.replace(old, assignments=old.assignments[:-1])
    assert verify_plan(over) != []
