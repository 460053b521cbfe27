"""A tower with a chiller: free cooling in cold air, less capacity and more power in warm air."""

import msgspec
import pytest

from powerhall.physics.plants.plant import Plant
from powerhall.physics.plants.tower_chiller import TowerChiller, tower_approach_k
from powerhall.physics.weather import Weather

PLANT = Plant("t", "tower_chiller", 1e6, supply_temp_c=25.0, cop=5.0, pump_power_w=1e3)
COLD, WARM = Weather(8.0, 5.0), Weather(35.0, 28.0)


def test_the_approach_is_interpolated_and_constant_outside_the_table():
    assert tower_approach_k(-10.0) == 9.4
    assert tower_approach_k(7.5) == pytest.approx(8.6)
    assert tower_approach_k(40.0) == 3.1


def test_free_cooling_runs_no_compressor():
    kind = TowerChiller()
    assert kind.capacity_w(PLANT, COLD) == 1e6
    assert kind.power_w(PLANT, 1e6, COLD) == 1e3
    without = msgspec.structs.replace(PLANT, free_cooling=False)
    assert kind.power_w(without, 1e6, COLD) > 1e5


def test_a_wet_bulb_above_the_rated_one_costs_capacity_and_performance():
    kind = TowerChiller()
    capacity_w = kind.capacity_w(PLANT, WARM)
    assert 0.9e6 < capacity_w < 1e6
    assert kind.power_w(PLANT, capacity_w, WARM) > capacity_w / PLANT.cop
