"""Units of a plant: the number that draws the least, against counting out every number of separate plants."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.physics.plants.test_kinds import PLANTS, TEMPERATURE
from powerhall.physics.plants.kinds import PLANT_KINDS, kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.physics.plants.staging import Staged, units_running
from powerhall.physics.weather import Weather


def one_unit(plant, part):
    """Return a plant of one unit, of the same kind, with its part of everything."""
    return msgspec.structs.replace(
        plant,
        units=1,
        min_part_load=0.0,
        capacity_w=plant.capacity_w / part,
        fan_power_w=plant.fan_power_w / part,
        pump_power_w=plant.pump_power_w / part,
    )


def unit_power_w(plant, heat_w, air):
    """Return what one unit draws: part of the time at its least load where the heat is less."""
    unit, kind = one_unit(plant, plant.units), PLANT_KINDS[plant.kind]
    low = plant.curves.part_load[0] if plant.curves else 0.0
    least_w = max(plant.min_part_load, low) * kind.capacity_w(unit, air)
    if heat_w >= least_w:
        return kind.power_w(unit, heat_w, air)
    on_w = kind.power_w(unit, least_w, air) - unit.pump_power_w
    return unit.pump_power_w + on_w * heat_w / least_w


@settings(max_examples=150)
@given(PLANTS, TEMPERATURE, st.floats(0, 1))
def test_the_units_that_run_are_the_cheapest_that_carry_the_heat(plant, wet, share):
    air, kind = Weather(wet + 5, wet), kind_of(plant)
    capacity_w = kind.capacity_w(plant, air)
    if capacity_w < 1:
        return
    heat_w = share * capacity_w
    fit = [n for n in range(1, plant.units + 1) if heat_w <= n * capacity_w / plant.units * (1 + 1e-9)]
    powers = {n: n * unit_power_w(plant, heat_w / n, air) for n in fit}
    units, power_w = units_running(kind, plant, heat_w, air), kind.power_w(plant, heat_w, air)
    slack = 1e-6 * max(powers.values()) + 1e-3
    assert units in powers
    assert power_w == pytest.approx(min(powers.values()), abs=slack)
    assert powers[units] == pytest.approx(power_w, abs=slack)
    assert all(powers[n] > power_w - slack for n in powers)


def test_few_units_run_where_each_costs_a_pump_and_all_where_fans_cost_most():
    air = Weather(20.0, 15.0)
    pumps = Plant("p", "fixed", 1e6, units=4, cop=5.0, pump_power_w=4e4)
    fans = Plant("p", "fixed", 1e6, units=4, cop=5.0, fan_power_w=4e4)
    assert [units_running(kind_of(pumps), pumps, heat_w, air) for heat_w in (0, 2e5, 3e5, 9e5)] == [1, 1, 2, 4]
    assert units_running(kind_of(fans), fans, 2e5, air) == 4
    held = msgspec.structs.replace(fans, min_part_load=0.5)
    assert units_running(kind_of(held), held, 2e5, air) < 4


def test_a_plant_of_one_unit_without_a_least_part_load_is_as_it_always_was():
    plant = Plant("p", "fixed", 1e6, cop=5.0, fan_power_w=4e4, pump_power_w=1e3)
    assert not isinstance(kind_of(plant), Staged)
    assert units_running(kind_of(plant), plant, 5e5, Weather(20.0, 15.0)) == 1


def test_heat_below_nothing_as_of_a_store_that_discharges_more_than_a_hall_gives_counts_as_none():
    air = Weather(20.0, 15.0)
    for plant in (
        Plant("p", "fixed", 1e6, units=3, pump_power_w=3e3, fan_power_w=1e4),
        Plant("p", "dry_cooler", 1e6, units=2, min_part_load=0.3, pump_power_w=3e3),
    ):
        kind = kind_of(plant)
        assert kind.power_w(plant, -2e5, air) == kind.power_w(plant, 0.0, air) == 3e3 / plant.units
        assert kind.power_w(plant, -2e5, Weather(50.0, 30.0)) >= 0.0
