"""Properties of every kind of plant: monotone in the weather, convex in the heat, registered under its name."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.physics.cooling import plant_capacity_w, plant_power_w
from powerhall.physics.plants.kinds import PLANT_KINDS, kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather
from powerhall.site.topology import Hall, Losses

PLANTS = st.builds(
    Plant,
    name=st.just("p"),
    kind=st.sampled_from(sorted(PLANT_KINDS)),
    capacity_w=st.floats(1e4, 1e7),
    supply_temp_c=st.floats(15, 45),
    rated_ambient_c=st.floats(10, 35),
    cop=st.floats(2, 10),
    fan_power_w=st.floats(0, 1e5),
    pump_power_w=st.floats(0, 1e5),
)
TEMPERATURE = st.floats(-20, 50)


@given(PLANTS, TEMPERATURE, st.floats(0, 20), st.floats(0, 25))
def test_warmer_air_never_gives_more_cooling_capacity(plant, wet, spread, warmer):
    cool = plant_capacity_w(plant, Weather(wet + spread, wet))
    assert 0 <= plant_capacity_w(plant, Weather(wet + spread + warmer, wet + warmer)) <= cool + 1e-6
    assert cool <= plant.capacity_w * (1 + 1e-9)


@given(PLANTS, TEMPERATURE, st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_plant_power_rises_with_heat_and_is_convex(plant, wet, shares):
    weather = Weather(wet + 5, wet)
    capacity = plant_capacity_w(plant, weather)
    if capacity < 1:
        return
    low, middle, high = (s * capacity for s in sorted(shares))
    power = [plant_power_w(plant, heat, weather) for heat in (low, middle, high)]
    assert power[0] <= power[1] + 1e-6 <= power[2] + 2e-6
    if high - low > 1e-3 * capacity:
        chord = power[0] + (power[2] - power[0]) * (middle - low) / (high - low)
        assert power[1] <= chord + 1e-6 * max(1.0, chord)


@given(PLANTS, TEMPERATURE, TEMPERATURE, st.floats(0, 1))
def test_a_kind_that_needs_no_weather_answers_the_same_in_any(plant, wet, other, share):
    if kind_of(plant).needs_weather:
        return
    heat_w = share * plant.capacity_w
    first, second = Weather(wet + 5, wet), Weather(other + 1, other)
    assert plant_capacity_w(plant, first) == plant_capacity_w(plant, second)
    assert plant_power_w(plant, heat_w, first) == plant_power_w(plant, heat_w, second)


def test_the_table_holds_every_kind_under_its_name():
    assert list(PLANT_KINDS) == ["fixed", "dry_cooler", "tower_chiller"]
    assert [kind.needs_weather for kind in PLANT_KINDS.values()] == [False, True, True]


def test_an_unknown_kind_is_refused_with_the_choices_in_memory_and_in_a_file():
    plant = Plant("p", "no_such_plant", 1.0)
    said = "plant p: kind 'no_such_plant': must be one of fixed, dry_cooler, tower_chiller"
    with pytest.raises(ValueError, match=said):
        kind_of(plant)
    with pytest.raises(ValueError, match=said):
        Hall("h", (), (plant,), Losses())
    text = b'{"zone":"h","rows":[],"losses":{},"plants":[{"name":"p","kind":"no_such_plant","capacity_w":1.0}]}'
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.json.decode(text, type=Hall)
