"""Evaporative and adiabatic coolers, and the water that they use: known points."""

import msgspec
import pytest

from powerhall.physics.plants.adiabatic import Adiabatic
from powerhall.physics.plants.dry_cooler import DryCooler
from powerhall.physics.plants.evaporative import Evaporative
from powerhall.physics.plants.plant import Plant
from powerhall.physics.psychrometrics import latent_share, saturated_enthalpy
from powerhall.physics.weather import Weather

TOWER = Plant("t", "evaporative", 1e6, supply_temp_c=30.0, approach_k=3.0, rated_ambient_c=22.0, fan_power_w=2e4)
PAD = Plant("a", "adiabatic", 1e6, supply_temp_c=36.0, rated_ambient_c=26.0, fan_power_w=2e4)


def test_the_enthalpy_of_saturated_air_is_that_of_the_tables():
    for temp_c, kj_per_kg in ((0.0, 9.473), (20.0, 57.555), (30.0, 100.006)):  # ASHRAE Fundamentals, chapter 1, table 2
        assert saturated_enthalpy(temp_c) == pytest.approx(1e3 * kj_per_kg, rel=4e-3)


def test_a_tower_without_chiller_follows_the_wet_bulb_alone():
    kind = Evaporative()
    assert kind.capacity_w(TOWER, Weather(45.0, 22.0)) == pytest.approx(1e6)
    assert kind.capacity_w(TOWER, Weather(45.0, 10.0)) == 1e6
    hot_w = kind.capacity_w(TOWER, Weather(30.0, 25.0))
    assert hot_w == pytest.approx(1e6 * (85.285 - 76.500) / (85.285 - 64.505), rel=0.02)
    assert kind.capacity_w(TOWER, Weather(30.0, 27.0)) == 0.0
    assert kind.power_w(TOWER, hot_w, Weather(30.0, 25.0)) == pytest.approx(2e4)


def test_a_pad_holds_the_rated_air_in_dry_heat_and_is_dry_in_cool_air():
    kind, dry_kind = Adiabatic(), DryCooler()
    desert, tropics, mild = Weather(40.0, 20.0), Weather(34.0, 31.0), Weather(24.0, 18.0)
    assert kind.capacity_w(PAD, desert) == 1e6
    assert dry_kind.capacity_w(PAD, desert) == 0.0
    assert kind.capacity_w(PAD, tropics) == pytest.approx(1e6 * (36.0 - (34.0 - 0.8 * 3.0)) / 10.0)
    assert kind.capacity_w(PAD, mild) == dry_kind.capacity_w(PAD, mild)
    assert kind.water_l_per_h(PAD, 5e5, mild) == 0.0
    # 1 MW; air from 26 to 36 + 10 - 6 degC; 14 K of cooling: 1 kg evaporates per 2.44 MJ; a third of it blown down
    due = 1e6 * 14.0 / 14.0 / 2.439e6 * 3600 * 1.5
    assert kind.water_l_per_h(PAD, 1e6, desert) == pytest.approx(due, rel=0.01)


def test_a_tower_evaporates_most_of_its_heat_in_warm_air_less_in_cold_and_more_in_the_desert():
    assert latent_share(30.0, 24.0, 32.0) == pytest.approx(0.94, abs=0.05)
    assert 0.4 < latent_share(0.0, -2.0, 20.0) < 0.75
    assert latent_share(42.0, 18.0, 28.0) > 1.2
    assert latent_share(20.0, 19.0, 15.0) == 1.0


def test_make_up_is_evaporation_drift_and_blow_down():
    kind, air = Evaporative(), Weather(30.0, 22.0)
    most = msgspec.structs.replace(TOWER, concentration_cycles=50.0, drift_share=0.0)
    evaporated = kind.water_l_per_h(most, 1e6, air) * 49 / 50
    share = latent_share(30.0, 22.0, 32.0)
    assert evaporated == pytest.approx(1e6 * share / (2.501e6 - 2381 * 32) * 3600, rel=1e-6)
    assert kind.water_l_per_h(msgspec.structs.replace(TOWER, drift_share=0.0), 1e6, air) == pytest.approx(
        1.5 * evaporated
    )
    drifting = msgspec.structs.replace(TOWER, drift_share=0.01)
    drift = 0.01 * 1e6 / (4186 * 10) * 3600
    blown_down = max(0.0, evaporated / 2 - drift)
    assert kind.water_l_per_h(drifting, 1e6, air) == pytest.approx(evaporated + drift + blown_down)
