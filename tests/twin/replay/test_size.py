"""Sizing: a grown site keeps its budgets, and the most nodes are those that an exact count allows."""

import json
from dataclasses import replace

import msgspec
import pytest
from object_meters import SiteMeter
from twin_jobs import START_S, job

from powerhall.jobs.job_files import write_jobs
from powerhall.physics.plants.plant import Plant
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.storage import Storage
from powerhall.site.topology import Losses
from powerhall.timeseries import Series
from powerhall_twin.cli import main
from powerhall_twin.policies.policy import RoundTiming
from powerhall_twin.replay.grow import node_count, resampled_jobs, with_nodes
from powerhall_twin.replay.size import SizingGoal, interval, least_of, most_nodes
from powerhall_twin.replay.sized_part import part_of
from powerhall_twin.site.scenario import MILD, Scenario


@pytest.mark.parametrize("nodes", [1, 40, 96, 131, 300])
def test_a_grown_site_has_the_nodes_and_keeps_budgets_plants_and_rack_limits(site, nodes):
    grown = with_nodes(site, nodes)
    assert node_count(grown) == nodes
    assert len(SiteIndex.of(grown).rack_of) == nodes, "every node has a name of its own"
    assert [hall.plants for hall in grown.halls] == [hall.plants for hall in site.halls]
    assert [hall.power_limit_w for hall in grown.halls] == [hall.power_limit_w for hall in site.halls]
    assert {rack.power_limit_w for rack in grown.racks()} <= {rack.power_limit_w for rack in site.racks()}


def test_resampled_jobs_are_as_many_as_asked_for_and_the_same_for_a_seed():
    jobs = [job(f"j{i}", 8, 1.0) for i in range(10)]
    assert len(resampled_jobs(jobs, 2.5, 0)) == 25
    assert len({one.job_id for one in resampled_jobs(jobs, 2.5, 3)}) == 25
    assert resampled_jobs(jobs, 1.7, 4) == resampled_jobs(jobs, 1.7, 4)
    assert resampled_jobs(jobs, 1.7, 4) != resampled_jobs(jobs, 1.7, 5)


def test_the_most_nodes_are_those_whose_jobs_all_run_at_once_within_the_budget(site):
    """Every node has one job of the whole node that must start at once, so the budget alone decides."""
    hall = msgspec.structs.replace(site.halls[0], power_limit_w=None)
    rows = tuple(msgspec.structs.replace(row, power_limit_w=None) for row in hall.rows)
    hall = msgspec.structs.replace(hall, rows=rows, plants=())
    on = msgspec.structs.replace(site, halls=(hall,), budgets={}, power_limit_w=150e3)
    own = node_count(on)
    jobs = tuple(job(f"j{i}", 8, 1.0, deadline_s=START_S + 3605) for i in range(own))
    case = Scenario(on, jobs, START_S, START_S + 2 * 3600.0)
    found, outcome = most_nodes(case, "easy", SizingGoal(misses=0.0, resolution=0.0), 0, RoundTiming())
    full_w = 8 * 977.0

    def meter_w(nodes: int) -> float:
        grown = with_nodes(on, nodes)
        racks = {rack.zone: len(rack.nodes) * full_w for rack in grown.racks()}
        return SiteMeter.of(grown).read(racks, MILD, 0.0).facility_w

    expected = max(n for n in range(1, 97) if meter_w(n) <= 150e3)
    assert abs(found - expected) <= 1
    assert outcome is not None
    assert outcome.deadlines_missed == 0


@pytest.fixture
def bare_hall(site):
    """One hall without limits, plants and losses, full of jobs of a whole node that must start at once."""
    hall = site.halls[0]
    rows = tuple(msgspec.structs.replace(row, power_limit_w=None) for row in hall.rows)
    hall = msgspec.structs.replace(hall, rows=rows, plants=(), power_limit_w=None, losses=Losses())
    on = msgspec.structs.replace(site, halls=(hall,), budgets={}, power_limit_w=None)
    jobs = tuple(job(f"j{i}", 8, 1.0, deadline_s=START_S + 3600.5) for i in range(node_count(on)))
    return on, Scenario(on, jobs, START_S, START_S + 2 * 3600.0)


def least(case, kind, most=1.0):
    goal = SizingGoal(misses=0.0, resolution=0.001, most_factor=most)
    part = part_of(case.site, kind, None)
    factor, outcome = least_of(part, case, "easy", goal, 0, timing=RoundTiming())
    return None if factor is None else factor * part.own, outcome


def test_the_least_battery_is_what_a_curtailment_lacks(bare_hall):
    on, case = bare_hall
    full_w = node_count(on) * 8 * 977.0
    begin_s, lack_w, lack_s = START_S + 600, 0.2 * full_w, 1500
    budget = Series((0.0, begin_s, begin_s + lack_s), (full_w, full_w - lack_w, full_w))
    most_j = 3 * lack_w * lack_s
    battery = Storage("bess", "battery", on.name, 9 * full_w, 9 * full_w, most_j, most_j, most_j, 0.25 * most_j)
    at = msgspec.structs.replace(on, budgets={on.name: budget}, storages=(battery,))
    kwh, outcome = least(replace(case, site=at), "battery")
    expected_kwh = lack_w * lack_s / 0.75 / 3.6e6
    assert expected_kwh <= kwh <= 1.01 * expected_kwh
    assert outcome.deadlines_missed == 0
    assert least(replace(case, site=at), "battery", 0.3)[0] is None


def test_the_least_cooling_and_tank_are_what_the_heat_needs(bare_hall):
    on, case = bare_hall
    heat_w = node_count(on) * 8 * 977.0
    plant = Plant("chiller", "fixed", 2 * heat_w, supply_temp_c=20.0)
    cooled = msgspec.structs.replace(on, halls=(msgspec.structs.replace(on.halls[0], plants=(plant,)),))
    kw, _ = least(replace(case, site=cooled), "cooling")
    assert heat_w / 1e3 <= kw <= (1.003) * heat_w / 1e3
    begin_s, hot_s = START_S + 600, 1500
    dry = Series((0.0, begin_s, begin_s + hot_s), (25.0, 26.0, 25.0))  # takes a tenth of the cooler's capacity
    cooler = Plant("cooler", "dry_cooler", 1.001 * heat_w, supply_temp_c=35.0)
    most_j = 3 * 0.1 * heat_w * hot_s
    tank = Storage("tank", "tank", on.halls[0].zone, heat_w, heat_w, most_j, most_j, most_j)
    hall = msgspec.structs.replace(on.halls[0], plants=(cooler,))
    at = msgspec.structs.replace(on, halls=(hall,), storages=(tank,))
    kwh, _ = least(replace(case, site=at, dry_bulb_c=dry, wet_bulb_c=dry), "tank")
    expected_kwh = 0.099 * heat_w * hot_s / 3.6e6
    assert expected_kwh <= kwh <= 1.01 * expected_kwh


def test_units_are_scaled_in_proportion_and_unknown_ones_refused(site):
    part = part_of(site, "cooling", site.halls[0].zone)
    scaled = part.scaled(site, 0.5)
    for hall, before in zip(scaled.halls, site.halls, strict=True):
        share = 0.5 if hall.zone == site.halls[0].zone else 1.0
        assert [p.capacity_w for p in hall.plants] == [share * p.capacity_w for p in before.plants]
        assert [p.fan_power_w for p in hall.plants] == [share * p.fan_power_w for p in before.plants]
    assert part.own == sum(p.capacity_w for p in site.halls[0].plants) / 1e3
    with pytest.raises(Rejected, match="--name: 'hall9': must be one of hall1/"):
        part_of(site, "cooling", "hall9")
    with pytest.raises(Rejected, match="--of: 'battery': needs one in the site file"):
        part_of(site, "battery", None)


def test_the_interval_is_students():
    low, high = interval([10.0, 12.0, 14.0])
    assert (low, high) == pytest.approx((12 - 4.302653 * 2 / 3**0.5, 12 + 4.302653 * 2 / 3**0.5))
    many = [float(n % 2) for n in range(12)]  # 2.201 by the tables, not the 1.96 of endless many
    assert interval(many)[1] == pytest.approx(0.5 + 2.200985 * (3 / 11) ** 0.5 / 12**0.5)
    assert interval([3.0]) == (None, None)


def test_size_prints_a_row_per_policy_and_refuses_wrong_options(demo_folder, tmp_path, capsys):
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(write_jobs([job(f"b{i}", 16, 1.0, submit_s=START_S + 60 * i) for i in range(60)]))
    args = ["size", "--site", str(demo_folder / "site.toml"), "--jobs", str(jobs), "--hours", "4", "--seeds", "2"]
    out = tmp_path / "size.json"
    args += ["--workers", "1"]
    assert main([*args, "--policies", "easy,lowcap", "--json", "--out", str(out)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == rows
    assert [row["policy"] for row in rows] == ["easy", "lowcap"]
    assert all(len(row["nodes"]) == 2 and row["mean"] > 0 for row in rows)
    assert main([*args, "--seeds", "0"]) == 1
    assert "--seeds" in capsys.readouterr().err
    assert main([*args, "--of", "cooling", "--name", "hall1", "--policies", "easy", "--seeds", "1"]) == 0
    assert "kW" in capsys.readouterr().out
    assert main([*args, "--name", "hall1"]) == 1
    assert "needs --of battery, tank or cooling" in capsys.readouterr().err
    assert main([*args, "--policies", ","]) == 1
    assert "must name at least one policy" in capsys.readouterr().err
    assert main([*args, "--policies", "fifo"]) == 1
    assert "must be one of powerhall" in capsys.readouterr().err
