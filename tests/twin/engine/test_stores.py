"""Batteries and tanks carry what is too much, within their powers and content, and a plan's dispatch is followed."""

import msgspec
import pytest
from twin_jobs import START_S, job

from powerhall.site.storage import Storage
from powerhall.timeseries import Series
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.policy import PolicyInputs
from powerhall_twin.policies.registry import BASELINES, POLICY_KINDS

MWH = 3.6e9


def battery(zone, held_j, **more):
    unit = Storage("bess", "battery", zone, 100e3, 200e3, 0.2 * MWH, held_j, held_j, efficiency=0.9)
    return msgspec.structs.replace(unit, **more)


def tank(hall, held_j):
    return Storage("tank", "tank", hall, 60e3, 120e3, 0.5 * MWH, held_j, held_j, medium="all")


def under(case, name="easy"):
    return simulate(case, POLICY_KINDS[name].open(PolicyInputs(case)), name)


@pytest.fixture
def curtailed(site):
    """A budget that a few jobs keep, and half an hour in which they do not."""
    grid = Series((0.0, START_S + 3600, START_S + 5400), (500e3, 350e3, 500e3))
    return msgspec.structs.replace(site, budgets={site.name: grid})


JOBS = [job(f"j{i}", 32, 3.0, submit_s=START_S - 10 + i, preemptible=True) for i in range(8)]


def test_a_battery_carries_a_curtailment_that_stops_jobs_without_it(curtailed, scenario):
    bare = under(scenario(*JOBS, on=curtailed, hours=2))
    stored = under(
        scenario(*JOBS, on=msgspec.structs.replace(curtailed, storages=(battery("demo", 0.1 * MWH),)), hours=2)
    )
    assert bare.stops > 0
    assert stored.stops == 0
    assert stored.over_budget_s == 0
    meter_w = [w for t, w in zip(stored.times_s, stored.facility_w, strict=True) if 3600 <= t - START_S < 5400]
    assert max(meter_w) <= 350e3 + 1
    assert 0 < stored.delivered_j["bess"] <= 150e3 * 1800


def test_an_empty_battery_holds_nothing_up_and_one_that_runs_out_lets_jobs_be_stopped_in_time(curtailed, scenario):
    for held_j in (0.0, 20e3 * 600):
        on = msgspec.structs.replace(curtailed, storages=(battery("demo", held_j, charge_w=1e-9),))
        outcome = under(scenario(*JOBS, on=on, hours=2))
        assert outcome.stops > 0
        assert outcome.over_budget_s == 0
        assert outcome.delivered_j["bess"] <= held_j + 1.0


def test_what_is_charged_is_paid_at_the_meter_and_comes_back_less_its_losses(site, scenario):
    plain = msgspec.structs.replace(site, budgets={site.name: Series((0.0,), (500e3,))})
    on = msgspec.structs.replace(plain, storages=(battery("demo", 0.0),))
    bare, stored = under(scenario(on=plain, hours=2)), under(scenario(on=on, hours=2))
    charged_j = stored.energy_j - bare.energy_j
    assert charged_j == pytest.approx(100e3 * 7200, rel=1e-6)
    assert stored.stored_j["bess"] == pytest.approx(0.9 * charged_j, rel=1e-6)
    assert stored.peak_w == pytest.approx(bare.peak_w + 100e3)


def test_a_tank_takes_the_heat_that_plants_do_not_take_in_a_hot_hour(site, scenario):
    hall = site.halls[0]
    one = [job("a", 128, 3.0, halls=("hall1",), preemptible=True)]
    weak = msgspec.structs.replace(hall.plants[0], capacity_w=150e3)
    on = msgspec.structs.replace(site, halls=(msgspec.structs.replace(hall, plants=(weak,)), *site.halls[1:]))
    bare = under(scenario(*one, on=on, hours=2))
    stored = under(scenario(*one, on=msgspec.structs.replace(on, storages=(tank("hall1", 0.5 * MWH),)), hours=2))
    assert bare.jobs_done == stored.jobs_done == 0
    assert stored.over_budget_s == 0
    assert all(0.0 <= one <= 0.5 * MWH for one in stored.stored_j.values())


@pytest.mark.parametrize("kind", [*BASELINES], ids=lambda kind: kind.name)
def test_no_policy_exceeds_a_limit_with_stores_and_none_holds_more_than_it_can(curtailed, scenario, kind):
    units = battery("demo", 0.05 * MWH, loss_per_h=0.01), tank("hall2", 0.1 * MWH)
    on = msgspec.structs.replace(curtailed, storages=units)
    jobs = [job(f"j{i}", 24 + 8 * (i % 5), 0.7, submit_s=START_S + 200 * i, preemptible=True) for i in range(25)]
    case = scenario(*jobs, on=on, hours=3)
    outcome = simulate(case, kind.open(PolicyInputs(case)), kind.name)
    assert not outcome.breaches
    assert all(0 <= outcome.stored_j[unit.name] <= unit.capacity_j for unit in units)
    assert outcome.jobs_done > 0
