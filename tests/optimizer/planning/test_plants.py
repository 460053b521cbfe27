"""A plan with staged plants: its units, power and water are those of the snapshot, and the checker finds any other."""

import random

import msgspec
import pytest

from powerhall.physics.cooling import hall_load
from powerhall.physics.plants.kinds import PLANT_KINDS
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Plan, read_plan, write_plan
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.leases.budgets import lease_budgets
from powerhall_optimizer.planning.figures import figures
from powerhall_optimizer.report.page import report_html
from powerhall_optimizer.round.publish import plan_points
from powerhall_optimizer.verify.plan import verify_plan
from rigs.node_types import H100_NODE
from rigs.stores import plan_of, snapshot_of

replace = msgspec.structs.replace
SITE = """
[site]
name = "dam"
power_limit = "160 kW"
losses = {fixed = "1 kW", linear = 0.03, quadratic_per_w = 1e-7}
"""
SITE += H100_NODE
SITE += """
[[halls]]
name = "a"
rows = [{name = "r", racks = [{node_type = "h100", count = 3, nodes = 4}]}]

[[events]]
zone = "dam"
start = 1700010900
end = 1700018100
reduce_percent = 50

[[halls.cooling]]
name = "tower"
kind = "evaporative"
serves = "liquid"
capacity = "160 kW"
supply_temp = "34 degC"
approach_k = 3
rated_ambient = "24 degC"
fan_power = "5 kW"
pump_power = "9 kW"
units = 3

[[halls.cooling]]
name = "chiller"
kind = "chiller"
serves = "air"
capacity = "60 kW"
supply_temp = "8 degC"
heat_rejection = "tower"
pump_power = "2 kW"
units = 3
min_part_load = 0.3

[halls.cooling.curves]
capacity_f_temp = [9.797101e-01, -2.895701e-03, -8.970718e-04, 1.031440e-02, -7.431651e-04, 1.453508e-03]
eir_f_temp = [9.946139e-01, -4.829399e-02, 4.674277e-04, -1.158726e-03, 5.762583e-04, 2.148192e-04]
eir_f_plr = [1.202277e-01, 1.396384e-01, 7.394038e-01]
evaporator_temp_c = [5.56, 10.0]
condenser_temp_c = [11.25, 23.89]
part_load = [0.19, 1.02]
cop = 5.42
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return plan_of(snapshot_of(SITE, tmp_path_factory.mktemp("plants")), 2.0)


def test_a_plan_of_staged_plants_is_verified_and_read_back(plan, tmp_path):
    assert verify_plan(plan) == []
    assert plan.status != "fallback"
    assert any(not entry.running for entry in plan.assignments)
    assert [(entry.hall, entry.plant) for entry in plan.plants] == [("a", "tower"), ("a", "chiller")]
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan


def test_units_follow_the_heat_and_are_the_cheapest_by_counting_them_out(plan):
    assert any(len(set(entry.units)) > 1 for entry in plan.plants), "the load changes, and so do the units that run"
    site = plan.snapshot.site
    for entry, plant in zip(plan.plants, site.halls[0].plants, strict=True):
        kind = PLANT_KINDS[plant.kind]
        third = replace(plant, units=1, min_part_load=0.0, pump_power_w=plant.pump_power_w / 3)
        third = replace(third, capacity_w=plant.capacity_w / 3, fan_power_w=plant.fan_power_w / 3)
        for slot, air in enumerate(map(Weather, plan.snapshot.dry_bulb_c, plan.snapshot.wet_bulb_c)):
            heat_w, most_w = entry.heat_w[slot], kind.capacity_w(third, air)
            powers = {
                n: n * kind.power_w(third, heat_w / n, air)
                for n in (1, 2, 3)
                if n * most_w >= heat_w >= n * plant.min_part_load * most_w
            }
            if powers:
                assert entry.power_w[slot] <= min(powers.values()) + 2.0


def test_the_water_of_a_plan_is_in_figures_points_and_report(plan):
    come = figures(plan)
    assert come.water_l == sum(sum(entry.water_l) for entry in plan.plants) > 0
    assert come.it_energy_j == pytest.approx(sum(plan.zones[1].planned_w) * plan.snapshot.slot_s)
    wue = come.water_l / (come.it_energy_j / 3.6e6)
    assert 0.5 < wue < 6.0
    points = [point for point in plan_points(plan) if point.measurement == "plan_plant"]
    assert len(points) == 2 * plan.snapshot.slots
    page = report_html(plan)
    assert "water per kWh of IT (WUE)" in page
    assert "of 3" in page


@pytest.mark.parametrize(
    ("field", "change", "said"),
    [
        ("units", lambda n: 4, "runs 4 of 3 units"),
        ("units", lambda n: 0, "runs 0 of 3 units"),
        ("units", lambda n: n % 3 + 1, "units"),
        ("power_w", lambda w: w - 100, "draws"),
        ("heat_w", lambda w: w + 50, "takes"),
        ("water_l", lambda v: v + 5, "of water"),
    ],
)
def test_a_changed_plant_is_found(plan, field, change, said):
    for number, entry in enumerate(plan.plants):
        row = getattr(entry, field)
        changed = replace(entry, **{field: (*row[:40], change(row[40]), *row[41:])})
        plants = (*plan.plants[:number], changed, *plan.plants[number + 1 :])
        found = verify_plan(replace(plan, plants=plants))
        assert {violation.kind for violation in found} == {"plants"}
        assert said in found[0].text


def test_a_plan_that_leaves_staged_plants_out_or_lists_others_is_refused(plan):
    for plants in ((), plan.plants[:1], plan.plants[::-1], (*plan.plants, plan.plants[0])):
        found = verify_plan(replace(plan, plants=plants))
        assert [violation.kind for violation in found] == ["plants"]
    short = replace(plan.plants[0], units=plan.plants[0].units[1:])
    assert [v.kind for v in verify_plan(replace(plan, plants=(short, plan.plants[1])))] == ["plants"]


def test_a_plan_whose_plants_no_formula_can_take_is_refused_in_one_line(plan, tmp_path):
    text = msgspec.json.encode(plan).decode()
    for old, new, said in (
        ('"units":3', '"units":1000000000', "units must be from 1 to 64"),
        ('"concentration_cycles":3.0', '"concentration_cycles":1.0', "concentration_cycles must be from 1.1 to 50"),
        ('"part_load":[0.19', '"part_load":[0.0', "part_load must be a lowest ratio below 1"),
        ('"cop":5.42,"condenser', '"cop":1e300,"condenser', "1e+300"),
    ):
        assert old in text, old
        (tmp_path / "plan.json").write_text(text.replace(old, new))
        with pytest.raises(Rejected) as refused:
            read_plan(tmp_path / "plan.json")
        assert said in str(refused.value)
    huge = replace(plan.plants[0], power_w=(10**400, *plan.plants[0].power_w[1:]))
    assert [v.kind for v in verify_plan(replace(plan, plants=(huge, plan.plants[1])))] == ["number"]


def test_leases_count_a_pump_that_comes_on_at_any_load(plan):
    """Every draw of the nodes that the meter's budget allows is within the limit by the true curves of the units."""
    s = plan.snapshot
    pumps = [replace(plant, pump_power_w=30e3, fan_power_w=0.0) for plant in s.site.halls[0].plants]
    site = replace(s.site, halls=(replace(s.site.halls[0], plants=tuple(pumps)),))
    draw = random.Random(7)
    budgets = lease_budgets(replace(plan, snapshot=replace(s, site=site)), s.start_s, s.start_s + 300)
    meter = next(budget for budget in budgets if budget.zone == "dam")
    air = Weather(s.dry_bulb_c[0], s.wet_bulb_c[0])
    for _ in range(400):
        caps = {node: draw.randint(0, draw.choice((1000, 4000, 10_200))) for node in meter.nodes}
        used_w = sum(caps.values())
        true_w = hall_load(site.halls[0], 0.7 * used_w, 0.3 * used_w, air).facility_power_w
        assert 160e3 - true_w >= meter.budget_w - meter.load_w(caps) - 1e-6
