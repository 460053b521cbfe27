"""Stores in site files and their physics: batteries, chilled-water tanks, the inertia of cooling loops."""

from fractions import Fraction

import pytest

from powerhall.physics.cooling import hall_load
from powerhall.physics.weather import Weather
from powerhall.runtime.errors import Rejected
from powerhall.site.site_file import read_site
from powerhall.site.storage import Storage, keep_factor, parse_heat_capacity, trajectory

SITE = """
[site]
name = "phx"
power_limit = "100 kW"

[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "2 kW"
max_power = "10 kW"
liquid_fraction = 0.5
modes = [{name = "full", gpu_power = "1 kW", speed = 1.0}]

[[halls]]
name = "a"
rows = [{name = "r", racks = [{node_type = "h100", name = "x"}, {node_type = "h100", name = "y"}]}]
cooling = [
  {kind = "dry_cooler", capacity = "20 kW", serves = "liquid", supply_temp = "35 degC"},
  {kind = "fixed", capacity = "20 kW", serves = "air", supply_temp = "20 degC"},
]

[[halls]]
name = "b"
rows = [{name = "r", racks = [{node_type = "h100", nodes = 2}]}]

[[feeds]]
name = "f1"
power_limit = "60 kW"
members = ["b"]

[[feeds]]
name = "part"
power_limit = "60 kW"
members = ["a/r/x"]
"""
BATTERY = '[[batteries]]\nname = "bess"\nenergy = "10 kWh"\ncharge_power = "5 kW"\ndischarge_power = "20 kW"\n'
TANK = """
[[tanks]]
name = "t"
hall = "a"
serves = "air"
energy = "8 kWh"
charge_power = "2 kW"
discharge_power = "4 kW"
"""
LOOP = """
[[loops]]
name = "l"
hall = "a"
serves = "liquid"
heat_capacity = "2 MJ/K"
max_supply = "W40"
overshoot = "3 kW"
"""


def read(tmp_path, text: str):
    path = tmp_path / "site.toml"
    path.write_text(SITE + text)
    return read_site(path)[0]


def test_a_site_names_its_battery_tank_and_loop(tmp_path):
    battery, tank, loop = read(tmp_path, BATTERY + TANK + LOOP).storages
    assert (battery.kind, battery.zone, battery.capacity_j) == ("battery", "phx", 36e6)
    assert (battery.min_j, battery.start_j, battery.end_j) == pytest.approx((3.6e6, 18e6, 18e6))
    assert (tank.zone, tank.medium, tank.start_j, tank.charge_w) == ("a", "air", 28.8e6, 2e3)
    assert (loop.discharge_w, loop.charge_w, loop.capacity_j) == (3e3, 3e3, 10e6)
    assert (loop.start_j, loop.end_j) == (10e6, 10e6)


def test_a_loop_stores_cooling_between_its_set_point_and_its_class(tmp_path):
    loop = read(tmp_path, LOOP).storages[0]
    assert loop.temp_c(loop.capacity_j) == 35.0
    assert loop.temp_c(0.0) == 40.0
    assert loop.temp_c(loop.at_temp_j(37.5)) == 37.5
    assert loop.at_temp_j(99.0) == 0.0


def test_a_limit_of_the_return_leaves_less_room(tmp_path):
    loop = read(tmp_path, LOOP + 'max_return = "49 degC"\n').storages[0]
    assert loop.temp_c(0.0) == pytest.approx(49.0 - 10.0 * 1.15)  # 3 kW above the 20 kW that warm it by 10 K


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BATTERY + 'at = "b"', "batteries[0].at: 'b': must be the site phx or a feed: f1, part"),
        (BATTERY + 'at = "part"', "part carries a part of a"),
        (BATTERY + "round_trip = 1.2", "batteries[0].round_trip: 1.2"),
        (BATTERY + "min_share = 0.6", "batteries[0].start_share: 0.5: must be a number from 0.6 to 1"),
        (BATTERY.replace("10 kWh", "0 kWh"), "batteries[0].energy: '0 kWh': must be above zero"),
        (BATTERY.replace("10 kWh", "ten"), "batteries[0].energy: 'ten'"),
        (BATTERY.replace("5 kW", "5 kWh"), "batteries[0].charge_power"),
        (BATTERY.replace("bess", "be ss"), "batteries[0].name"),
        (BATTERY + BATTERY, "batteries[1].name: 'bess': must be unique"),
        (BATTERY.replace("bess", "a"), "batteries[0].name: 'a': must be unique among zones and stores"),
        (BATTERY + "colour = 1", "colour"),
        (TANK.replace('"a"', '"b"'), "tanks[0].hall: 'b': must be a hall with cooling: a"),
        (TANK.replace('"air"', '"all"'), "tanks[0].serves: 'all': must be what its plants serve: liquid, air"),
        (TANK + "loss_per_h = nan", "tanks[0].loss_per_h: nan"),
        (
            LOOP.replace("W40", "W99"),
            "loops[0].max_supply: 'W99': must be a temperature such as '32 degC', or an ASHRAE",
        ),
        (LOOP.replace("W40", "W32"), "loops[0].max_supply: 'W32': must leave room above the set point"),
        (LOOP + 'min_supply = "30 degC"', "loops[0].min_supply: '30 degC': must be at least 35 degC"),
        (LOOP + 'start_supply = "41 degC"', "loops[0].start_supply: '41 degC': must be 35 to 40 degC"),
        (LOOP + 'max_return = "46 degC"', "loops[0].max_return: '46 degC': must leave room"),
        (LOOP.replace("2 MJ/K", "2 MJ"), "loops[0].heat_capacity: '2 MJ'"),
        (LOOP + LOOP.replace('"l"', '"m"'), "loops[1].serves: 'liquid': must be one loop per hall and medium"),
    ],
)
def test_a_wrong_store_is_refused_in_one_line_with_field_and_value(tmp_path, text, said):
    with pytest.raises(Rejected) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_contents_follow_powers_exactly():
    store = Storage("b", "battery", "x", 1e3, 1e3, 1e9, 1e6, 1e6, efficiency=0.9, loss_per_h=0.01)
    keep = keep_factor(store, 300)
    assert 0.999 < keep < 1
    held = trajectory(store, 1_000_000, (-1000, 500, 0), 300)
    assert held[1] == keep * 1_000_000 + 270_000
    assert held[2] == keep * held[1] - 150_000
    assert held[3] == keep * held[2]
    assert all(isinstance(state, Fraction) for state in held)


@pytest.mark.parametrize(("text", "value"), [("80 MJ/K", 8e7), ("2 GJ/K", 2e9), ("10 m3", 4.18e7), ("5 kJ/K", 5e3)])
def test_a_heat_capacity_is_read_from_energy_per_kelvin_or_from_water(text, value):
    assert parse_heat_capacity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "MJ/K", "-1 m3", "nan m3", "inf m3", "1e30 GJ/K", "3 l"])
def test_a_wrong_heat_capacity_is_refused(text):
    with pytest.raises(ValueError, match="must be a heat capacity"):
        parse_heat_capacity(text)


def test_stored_cooling_takes_heat_off_the_plants_and_saves_their_power(tmp_path):
    hall = read(tmp_path, "").hall("a")
    weather = Weather(20.0, 15.0)
    plain, helped = hall_load(hall, 8e3, 9e3, weather), hall_load(hall, 8e3, 9e3, weather, {"air": 3e3})
    charged = hall_load(hall, 8e3, 9e3, weather, {"air": -3e3})
    assert helped.heat_w["air"] == plain.heat_w["air"] - 3e3
    assert helped.heat_w["liquid"] == plain.heat_w["liquid"]
    assert helped.cooling_power_w < plain.cooling_power_w < charged.cooling_power_w
    assert charged.it_power_w == plain.it_power_w
