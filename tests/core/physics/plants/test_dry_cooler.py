"""A dry cooler: no capacity without a distance from the dry bulb."""

from powerhall.physics.cooling import hall_load
from powerhall.physics.plants.dry_cooler import DryCooler
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather
from powerhall.site.topology import Hall, Losses


def test_a_dry_cooler_in_air_as_warm_as_its_supply_cools_nothing():
    plant = Plant("d", "dry_cooler", 1e6, supply_temp_c=32.0)
    assert DryCooler().capacity_w(plant, Weather(32.0, 20.0)) == 0.0
    assert not hall_load(Hall("a", (), (plant,), Losses()), 1e3, 0.0, Weather(40.0, 20.0)).cooled


def test_fans_follow_the_cube_of_the_load():
    plant = Plant("d", "dry_cooler", 1e6, fan_power_w=8e3, pump_power_w=1e3)
    weather = Weather(10.0, 5.0)
    assert DryCooler().power_w(plant, 5e5, weather) == 1e3 + 8e3 / 8
    assert DryCooler().power_w(plant, 0.0, weather) == 1e3
