"""The cooling load of a hall."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.physics.cooling import hall_load, needs_weather
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather
from powerhall.site.topology import Hall, Losses


@given(st.floats(0, 1e7), st.floats(0, 1e7), st.floats(0, 0.1), st.floats(0, 1e-8))
def test_facility_power_is_the_sum_of_its_parts_and_losses_heat_the_air(liquid, air, linear, quadratic):
    plants = (Plant("l", "fixed", 1e8, "liquid"), Plant("a", "fixed", 1e8, "air"))
    load = hall_load(Hall("a", (), plants, Losses(100.0, linear, quadratic)), liquid, air, Weather(20, 15))
    assert load.facility_power_w == pytest.approx(liquid + air + load.cooling_power_w + load.loss_power_w)
    assert load.heat_w == {"liquid": liquid, "air": pytest.approx(air + load.loss_power_w)}
    assert load.cooled


def test_a_hall_needs_weather_if_any_of_its_plants_does():
    chiller, cooler = Plant("a", "fixed", 1.0, "air"), Plant("l", "dry_cooler", 1.0, "liquid")
    assert not needs_weather(Hall("a", (), (chiller,), Losses()))
    assert needs_weather(Hall("a", (), (chiller, cooler), Losses()))
