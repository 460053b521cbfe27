"""A site with measured power has the engine's meters, limits and jobs; the meters of objects judge them."""

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from object_guard import LimitGuard
from object_meters import SiteMeter
from twin_jobs import START_S, job

from powerhall.physics.weather import Weather
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Feed
from powerhall.timeseries import Series
from powerhall_twin.engine.job_arrays import put_measured
from powerhall_twin.engine.measured_site import MeasuredSite, hall_loads
from powerhall_twin.engine.simulation import Simulation
from powerhall_twin.site.breach import LimitKind
from powerhall_twin.site.job_behaviour import behaviour_of, speed_at
from powerhall_twin.site.scenario import MILD, Scenario
from powerhall_twin.site.simulated_nodes import SimulatedNodes, advance_nodes, create_nodes

HOT = Weather(45.0, 24.0)


class Metered:
    """A site without jobs whose racks draw what a test says."""

    def __init__(self, site, *weather, step_s=60.0, jobs=()):
        times = tuple(START_S + step_s * number for number in range(len(weather)))
        dry = Series(times, tuple(one.dry_bulb_c for one in weather))
        wet = Series(times, tuple(one.wet_bulb_c for one in weather))
        self.sim = Simulation.of(Scenario(site, jobs, START_S, START_S + 9e6, dry, wet), "x")
        self.state, self.gauges = self.sim.state, self.sim.gauges

    def read(self, rack_w, dt_s):
        """Let racks draw so much for so long; return the loads of the halls and the power at the meter."""
        self.sim.put_moment()
        per_node = {node: rack_w[rack.zone] / len(rack.nodes) for node, rack in self.state.arrays.index.rack_of.items()}
        node_nw = np.rint(np.array(list(per_node.values())) * 1e9).astype(np.int64)
        put_measured(self.state.world, node_nw, np.ones(len(self.state.jobs)), self.state.now_s)
        loads = hall_loads(self.state)
        self.sim.advance(self.state.now_s + dt_s, dt_s)
        return loads, float(self.gauges.totals[0])

    def zone_w(self, zone):
        return self.state.world.draw.zone_nw[self.state.arrays.zones.index(zone)] / 1e9

    def excess_k(self, hall):
        return float(self.gauges.excess_k[self.state.arrays.hall_of[hall]])


def even(site, rack_w: float) -> dict[str, float]:
    return {rack.zone: rack_w for rack in site.racks()}


@pytest.mark.parametrize("seed", range(4))
def test_meters_heat_and_limits_are_those_of_the_meters_of_objects(mixed, seed):
    """Random power of every rack, weather and steps, on halls with and without a split of the heat."""
    draw = random.Random(seed)
    weather = [Weather(draw.uniform(5, 47), draw.uniform(0, 27)) for _ in range(60)]
    arrays, objects, guard = Metered(mixed, *weather), SiteMeter.of(mixed), LimitGuard()
    over = 0
    for moment in weather:
        rack_w = {rack.zone: draw.choice((0.3, 1.0)) * draw.uniform(5e3, 75e3) for rack in mixed.racks()}
        now_s, before = arrays.state.now_s, len(guard.breaches)
        loads, facility_w = arrays.read(rack_w, 60.0)
        reading = objects.read(rack_w, moment, 60.0)
        guard.check(mixed, reading, SiteIndex.of(mixed).budgets_at(now_s), now_s)
        assert facility_w == pytest.approx(reading.facility_w, rel=1e-9)
        assert bool(arrays.gauges.totals[2]) == (len(guard.breaches) > before)
        over += len(guard.breaches) > before
        for zone in arrays.state.arrays.zones:
            assert arrays.zone_w(zone) == pytest.approx(reading.it_w[zone], abs=1e-6)
        for hall, load in reading.halls.items():
            for field in ("it_power_w", "cooling_power_w", "loss_power_w", "facility_power_w"):
                assert getattr(loads[hall], field) == pytest.approx(getattr(load, field), rel=1e-9), (hall, field)
            assert loads[hall].heat_w == pytest.approx(load.heat_w, rel=1e-9)
            assert loads[hall].capacity_w == pytest.approx(load.capacity_w, rel=1e-9)
            assert arrays.excess_k(hall) == pytest.approx(reading.excess_k[hall], rel=1e-9, abs=1e-9)
    assert 0 < over < 60
    arrays.sim.close()
    outcome = arrays.sim.outcome
    assert outcome.worst_headroom == pytest.approx(guard.worst_headroom, abs=1e-9)
    assert outcome.worst_at_s == guard.worst_at_s
    assert {b.zone for b in outcome.breaches} == {b.zone for b in guard.breaches}
    assert outcome.over_budget_s == over * 60.0


@given(st.floats(13_000, 62_000), st.sampled_from([MILD, HOT, Weather(35.0, 20.0)]))
def test_every_zone_is_the_sum_of_the_racks_under_it(site, rack_w, weather):
    metered = Metered(site, weather)
    loads, facility_w = metered.read(even(site, rack_w), 60.0)
    for hall in site.halls:
        assert metered.zone_w(hall.zone) == pytest.approx(4 * rack_w)
        assert loads[hall.zone].it_power_w == pytest.approx(4 * rack_w)
        for row in hall.rows:
            assert metered.zone_w(row.zone) == pytest.approx(2 * rack_w)
    total = sum(load.it_power_w + load.cooling_power_w + load.loss_power_w for load in loads.values())
    assert facility_w == pytest.approx(total)


def test_feeds_are_metered_with_the_racks_under_them(site):
    fed = msgspec.structs.replace(site, feeds=(Feed("f1", ("hall1", "hall2/a"), 1e6),))
    assert "f1" in SiteIndex.of(fed).zones_above("hall2/a/k01")
    metered = Metered(fed, MILD)
    metered.read(even(fed, 20_000.0), 60.0)
    assert metered.zone_w("f1") == pytest.approx(6 * 20_000.0)


def test_a_hall_warms_while_its_plants_cannot_take_the_heat_and_cools_down_after(site):
    metered = Metered(site, HOT, HOT, MILD, step_s=600.0)
    load = even(site, 50_000.0)
    loads, _ = metered.read(load, 0.0)
    assert metered.excess_k("hall3") == 0.0, "no time has passed"
    over_w = loads["hall3"].heat_w["liquid"] - loads["hall3"].capacity_w["liquid"]
    assert over_w > 0
    water_j_per_k = 41.8 * sum(plant.capacity_w for plant in site.hall("hall3").plants)
    metered.read(load, 600.0)
    assert metered.excess_k("hall3") == pytest.approx(over_w * 600.0 / water_j_per_k)
    assert metered.excess_k("hall1") == 0.0, "its tower feels the wet bulb, not the heat"
    metered.read(even(site, 15_000.0), 600.0)
    for _ in range(200):
        metered.read(even(site, 15_000.0), 300.0)
    assert metered.excess_k("hall3") == pytest.approx(0.0, abs=1e-3)


def test_the_lower_of_constant_limit_and_series_counts(site):
    limited = msgspec.structs.replace(
        site,
        power_limit_w=650e3,
        budgets={site.name: Series((0.0, 100.0), (700e3, 500e3)), "hall1": Series((0.0,), (9e9,))},
    )
    assert SiteIndex.of(limited).budget_at("demo", 50.0) == 650e3
    assert SiteIndex.of(limited).budget_at("demo", 150.0) == 500e3
    assert SiteIndex.of(limited).budgets_at(0.0)["hall1"] == 225e3


def test_power_and_cooling_over_their_limits_are_breaches(site):
    metered = Metered(site, MILD, HOT)
    metered.read(even(site, 30_000.0), 60.0)
    assert metered.gauges.totals[2] == 0.0
    metered.read(even(site, 60_000.0), 60.0)
    assert metered.gauges.totals[2] == 1.0
    metered.sim.close()
    outcome = metered.sim.outcome
    found = {(b.zone, b.limit) for b in outcome.breaches}
    power = {("demo", LimitKind.POWER), ("hall1", LimitKind.POWER)}
    assert power | {("hall3 cooling (liquid)", LimitKind.COOLING)} <= found
    assert ("hall1/a/k01", LimitKind.POWER) not in found
    assert outcome.worst_headroom["demo"] < 0
    assert outcome.worst_at_s["demo"] == START_S + 60.0
    assert outcome.over_budget_s == 60.0


def test_some_watts_over_a_budget_are_a_breach(site):
    for over_w, is_over in ((-5.0, False), (0.0, False), (5.0, True)):
        limit = Series((0.0,), (120_000.0 - over_w,))
        metered = Metered(msgspec.structs.replace(site, budgets={**site.budgets, "hall1": limit}), MILD)
        metered.read(even(site, 30_000.0), 60.0)
        assert bool(metered.gauges.totals[2]) == is_over


def test_a_changed_site_file_counts_from_the_next_moment_on(site):
    metered = Metered(site, MILD)
    metered.read(even(site, 30_000.0), 60.0)
    assert metered.gauges.totals[2] == 0.0
    cut = msgspec.structs.replace(site, budgets={site.name: Series((0.0, START_S + 90.0), (700e3, 300e3))})
    metered.sim.change_site(cut)
    metered.read(even(site, 30_000.0), 60.0)
    assert metered.gauges.totals[2] == 0.0, "the cut begins later"
    metered.read(even(site, 30_000.0), 60.0)
    assert metered.gauges.totals[2] == 1.0
    metered.sim.change_site(site)
    metered.read(even(site, 30_000.0), 60.0)
    assert metered.gauges.totals[2] == 0.0, "a budget that was taken back holds no longer"
    other = msgspec.structs.replace(site, halls=site.halls[:2])
    with pytest.raises(ValueError, match="nodes or zones"):
        metered.sim.change_site(other)


def test_jobs_go_as_fast_as_the_slowest_of_their_gpus_and_end_with_the_step(site, tmp_path):
    """The step in which a job ends counts its work once; the power is that of the GPUs, not of the tables."""
    create_nodes(site, tmp_path, seed=1)
    nodes = SimulatedNodes.open(site, tmp_path)
    one = job("a", 16, 0.1, job_class="research")
    live = MeasuredSite.of(Scenario(site, (one,), START_S, START_S + 7200.0), "x", nodes)
    live.put_moment()
    names = live.state.arrays.node_names[:2]
    live.state.start(0, dict.fromkeys(names, 8), 3, 550.0)
    speeds, left_s, steps = [], 360.0, 0
    while live.state.running.size:
        live.put_moment()
        live.put_loads()
        advance_nodes(list(nodes.states.values()), 60.0)
        reading = live.read(60.0)
        slowest = min(nodes.clock_ratio(name, 0) for name in names)
        speeds.append(speed_at(slowest, behaviour_of("research").clock_share))
        left_s -= 60.0 * speeds[-1]
        steps += 1
        assert live.work_gpu_s() == pytest.approx(16 * (360.0 - max(0.0, left_s)))
        drawn_w = sum(map(nodes.power_w, live.state.arrays.node_names))
        assert sum(load.it_power_w for load in reading.halls.values()) == pytest.approx(drawn_w, rel=1e-9)
    assert min(speeds) < 1.0
    assert left_s <= 0.0
    live.sim.close()
    assert live.sim.outcome.jobs_done == 1
    assert live.sim.outcome.work_gpu_s == pytest.approx(16 * 360.0)
    assert live.sim.outcome.job_outcomes[0].end_s == START_S + 60.0 * steps
    assert not live.placed.runs
