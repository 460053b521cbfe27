"""Properties of every kind of plant, with one unit and with several: monotone, finite, scaled; its name; its water."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.physics.cooling import plant_capacity_w, plant_power_w
from powerhall.physics.plants.chiller_curves import ChillerCurves
from powerhall.physics.plants.kinds import PLANT_KINDS, kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather
from powerhall.site.topology import Hall, Losses

CURVES = ChillerCurves(  # McQuay WSC, 471 kW, inlet vanes: capacity and power turn within the limits
    (2.521130e-01, 1.324053e-02, -8.637329e-03, 8.581056e-02, -4.261176e-03, 8.661899e-03),
    (4.475238e-01, -2.588210e-02, -1.459053e-03, 4.342595e-02, -1.000651e-03, 1.920106e-03),
    (2.778889e-01, 2.338363e-01, 4.883748e-01),
    (7.22, 12.78),
    (12.78, 26.67),
    (0.1, 1.15),
)
PART_LOAD = st.floats(0.0, 0.9) | st.just(0.0)
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
    units=st.integers(1, 6),
    min_part_load=PART_LOAD,
    heat_rejection=st.sampled_from(["tower", "dry", "air"]),
    free_cooling=st.booleans(),
    pad_effectiveness=st.floats(0.1, 1.0),
    curves=st.just(CURVES),
)
TEMPERATURE = st.floats(-20, 50)


@given(PLANTS, TEMPERATURE, st.floats(0, 20), st.floats(0, 25))
def test_warmer_air_never_gives_more_cooling_capacity(plant, wet, spread, warmer):
    cool = plant_capacity_w(plant, Weather(wet + spread, wet))
    assert 0 <= plant_capacity_w(plant, Weather(wet + spread + warmer, wet + warmer)) <= cool + 1e-6
    assert cool <= plant.capacity_w * (1 + 1e-9)


@given(PLANTS, TEMPERATURE, st.lists(st.floats(0, 1.2), min_size=2, max_size=2), st.floats(0, 25))
def test_power_never_falls_with_heat_nor_with_warmer_air(plant, wet, shares, warmer):
    cool, warm = Weather(wet + 5, wet), Weather(wet + 5 + warmer, wet + warmer)
    low_w, high_w = (share * plant.capacity_w for share in sorted(shares))
    slack_w = 1e-6 * plant.capacity_w
    assert plant_power_w(plant, low_w, cool) <= plant_power_w(plant, high_w, cool) + slack_w
    if high_w <= plant_capacity_w(plant, warm):
        assert plant_power_w(plant, high_w, cool) <= plant_power_w(plant, high_w, warm) + slack_w


@given(PLANTS, TEMPERATURE, st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_kind_that_says_so_is_convex_in_the_heat(plant, wet, shares):
    weather = Weather(wet + 5, wet)
    capacity = plant_capacity_w(plant, weather)
    if capacity < 1 or not kind_of(plant).convex:
        return
    low, middle, high = (s * capacity for s in sorted(shares))
    power = [plant_power_w(plant, heat, weather) for heat in (low, middle, high)]
    if high - low > 1e-3 * capacity:
        chord = power[0] + (power[2] - power[0]) * (middle - low) / (high - low)
        assert power[1] <= chord + 1e-6 * max(1.0, chord)


@given(PLANTS, st.floats(-90, 90), st.floats(-20, 60), st.floats(0, 3))
def test_figures_are_finite_and_not_negative_in_any_weather_and_far_above_capacity(plant, wet, spread, share):
    weather = Weather(wet + spread, wet)
    kind, heat_w = kind_of(plant), share * plant.capacity_w
    figures = kind.capacity_w(plant, weather), kind.power_w(plant, heat_w, weather)
    for figure in (*figures, kind.water_l_per_h(plant, heat_w, weather)):
        assert math.isfinite(figure)
        assert figure >= 0.0


@given(PLANTS, TEMPERATURE, st.floats(0, 1), st.floats(1, 50))
def test_a_plant_scales_with_capacity_fans_and_pumps(plant, wet, share, factor):
    weather = Weather(wet + 5, wet)
    large = msgspec.structs.replace(
        plant,
        capacity_w=factor * plant.capacity_w,
        fan_power_w=factor * plant.fan_power_w,
        pump_power_w=factor * plant.pump_power_w,
    )
    heat_w = share * plant_capacity_w(plant, weather)
    assert plant_capacity_w(large, weather) == pytest.approx(factor * plant_capacity_w(plant, weather))
    power_w = plant_power_w(plant, heat_w, weather)
    assert plant_power_w(large, factor * heat_w, weather) == pytest.approx(factor * power_w, rel=1e-6, abs=1e-3)


@given(PLANTS, TEMPERATURE, st.floats(0, 40), st.floats(0.01, 1))
def test_water_is_used_by_towers_and_pads_alone_and_no_more_than_heat_can_evaporate(plant, wet, spread, share):
    weather, kind = Weather(wet + spread, wet), kind_of(plant)
    heat_w = share * plant_capacity_w(plant, weather)
    water = kind.water_l_per_h(plant, heat_w, weather)
    wets = plant.kind in ("tower_chiller", "evaporative") or (
        plant.kind == "chiller" and plant.heat_rejection == "tower"
    )
    if not wets and plant.kind != "adiabatic":
        assert water == 0.0
    if wets and heat_w > 0:
        rejected_w = heat_w + kind.power_w(plant, heat_w, weather)
        assert 0.0 < water <= rejected_w * 2 * 1.6 / 2.35e6 * 3600


@given(PLANTS, TEMPERATURE, TEMPERATURE, st.floats(0, 1))
def test_a_kind_that_needs_no_weather_answers_the_same_in_any(plant, wet, other, share):
    if kind_of(plant).needs_weather:
        return
    heat_w = share * plant.capacity_w
    first, second = Weather(wet + 5, wet), Weather(other + 1, other)
    assert plant_capacity_w(plant, first) == plant_capacity_w(plant, second)
    assert plant_power_w(plant, heat_w, first) == plant_power_w(plant, heat_w, second)


def test_the_table_holds_every_kind_under_its_name():
    assert list(PLANT_KINDS) == ["fixed", "dry_cooler", "tower_chiller", "chiller", "adiabatic", "evaporative"]
    assert [kind.needs_weather for kind in PLANT_KINDS.values()] == [False, True, True, True, True, True]


def test_an_unknown_kind_is_refused_with_the_choices_in_memory_and_in_a_file():
    plant = Plant("p", "no_such_plant", 1.0)
    names = "fixed, dry_cooler, tower_chiller, chiller, adiabatic, evaporative"
    said = f"plant p: kind 'no_such_plant': must be one of {names}"
    with pytest.raises(ValueError, match=said):
        kind_of(plant)
    with pytest.raises(ValueError, match=said):
        Hall("h", (), (plant,), Losses())
    text = b'{"zone":"h","rows":[],"losses":{},"plants":[{"name":"p","kind":"no_such_plant","capacity_w":1.0}]}'
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.json.decode(text, type=Hall)
