"""A fixed plant: the same in any weather."""

import pytest

from powerhall.physics.plants.fixed import Fixed
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather


def test_full_load_power_is_capacity_over_cop_with_fans_and_pumps():
    plant = Plant("f", "fixed", 1e6, cop=5.0, fan_power_w=8e3, pump_power_w=1e3)
    for weather in (Weather(-10.0, -12.0), Weather(45.0, 25.0)):
        assert Fixed().capacity_w(plant, weather) == 1e6
        assert Fixed().power_w(plant, 1e6, weather) == pytest.approx(2e5 + 9e3)
        assert Fixed().power_w(plant, 5e5, weather) == pytest.approx(0.375 * 2e5 + 1e3 + 1e3)
