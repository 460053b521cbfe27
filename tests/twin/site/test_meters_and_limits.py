"""The building's meters add up, halls store heat, and the guard misses nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.physics.weather import Weather
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Feed
from powerhall.timeseries import Series
from powerhall_twin.site.building_meters import SiteMeter
from powerhall_twin.site.limit_guard import LimitGuard

MILD = Weather(20.0, 15.0)
HOT = Weather(45.0, 24.0)


def even(site, rack_w: float) -> dict[str, float]:
    return {rack.zone: rack_w for rack in site.racks()}


@given(st.floats(13_000, 62_000), st.sampled_from([MILD, HOT, Weather(35.0, 20.0)]))
def test_every_zone_is_the_sum_of_the_racks_under_it(site, rack_w, weather):
    reading = SiteMeter.of(site).read(even(site, rack_w), weather, 60.0)
    for hall in site.halls:
        assert reading.it_w[hall.zone] == pytest.approx(4 * rack_w)
        assert reading.halls[hall.zone].it_power_w == pytest.approx(4 * rack_w)
        for row in hall.rows:
            assert reading.it_w[row.zone] == pytest.approx(2 * rack_w)
    total = sum(load.it_power_w + load.cooling_power_w + load.loss_power_w for load in reading.halls.values())
    assert reading.facility_w == pytest.approx(total)


def test_feeds_are_metered_with_the_racks_under_them(site):
    feed = Feed("f1", ("hall1", "hall2/a"), 1e6)
    fed = msgspec.structs.replace(site, feeds=(feed,))
    assert "f1" in SiteIndex.of(fed).zones_above("hall2/a/k01")
    reading = SiteMeter.of(fed).read(even(fed, 20_000.0), MILD, 60.0)
    assert reading.it_w["f1"] == pytest.approx(6 * 20_000.0)


def test_a_hall_warms_while_its_plants_cannot_take_the_heat_and_cools_down_after(site):
    meter = SiteMeter.of(site)
    load = even(site, 50_000.0)
    reading = meter.read(load, HOT, 0.0)
    over_w = reading.halls["hall3"].heat_w["liquid"] - reading.halls["hall3"].capacity_w["liquid"]
    assert over_w > 0
    water_j_per_k = 41.8 * sum(plant.capacity_w for plant in site.hall("hall3").plants)
    reading = meter.read(load, HOT, 600.0)
    assert reading.excess_k["hall3"] == pytest.approx(over_w * 600.0 / water_j_per_k)
    assert reading.excess_k["hall1"] == 0.0, "its tower feels the wet bulb, not the heat"
    for _ in range(200):
        reading = meter.read(even(site, 15_000.0), MILD, 300.0)
    assert reading.excess_k["hall3"] == pytest.approx(0.0, abs=1e-3)


def test_the_lower_of_constant_limit_and_series_counts(site):
    limited = msgspec.structs.replace(
        site,
        power_limit_w=650e3,
        budgets={site.name: Series((0.0, 100.0), (700e3, 500e3)), "hall1": Series((0.0,), (9e9,))},
    )
    assert SiteIndex.of(limited).budget_at("demo", 50.0) == 650e3
    assert SiteIndex.of(limited).budget_at("demo", 150.0) == 500e3
    assert SiteIndex.of(limited).budgets_at(0.0)["hall1"] == 225e3


def test_the_guard_reports_power_and_cooling_over_their_limits(site):
    guard, meter = LimitGuard(), SiteMeter.of(site)
    budgets = SiteIndex.of(site).budgets_at(0.0)
    guard.check(site, meter.read(even(site, 30_000.0), MILD, 60.0), budgets, 0.0)
    assert not guard.breaches
    guard.check(site, meter.read(even(site, 60_000.0), HOT, 60.0), budgets, 60.0)
    found = {(b.zone, b.limit) for b in guard.breaches}
    assert {("demo", "power"), ("hall1", "power"), ("hall3 cooling (liquid)", "cooling")} <= found
    assert ("hall1/a/k01", "power") not in found
    assert guard.worst_headroom["demo"] < 0
    assert guard.worst_at_s["demo"] == 60.0
    assert guard.samples == 2


def test_a_watt_over_a_budget_is_a_breach(site):
    reading = SiteMeter.of(site).read(even(site, 30_000.0), MILD, 60.0)
    for over_w, breaches in ((-5.0, 0), (0.0, 0), (5.0, 1)):
        guard = LimitGuard()
        guard.check(site, reading, {"hall1": 120_000.0 - over_w}, 0.0)
        assert len(guard.breaches) == breaches
