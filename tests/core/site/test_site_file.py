"""site.toml: the site read from it, and the refusal of each kind of mistake."""

import pytest

from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.site_file import read_site

SITE = """
[site]
name = "dc1"
ramp_up = "5 MW/min"

[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "2 kW"
max_power = "10.2 kW"
modes = [{name = "eco", gpu_power = "0.9 kW", speed = 0.9}, {name = "full", gpu_power = "1.2 kW", speed = 1.0}]

[job_classes.pretrain]
draw = {full = 0.9}

[[feeds]]
name = "dc1.feed"
power_limit = "1 MW"
members = ["dc1.hall1/r1"]

[[halls]]
name = "dc1.hall1"
power_limit = "90 kW"
rows = [{name = "r1", racks = [{node_type = "h100", count = 2, nodes = 2}]},
        {name = "r2", racks = [{node_type = "h100", nodes = "gn[1-2]", power_limit = "30 kW"}]}]
cooling = [{kind = "fixed", capacity = "90 kW"}, {kind = "dry_cooler", capacity = "1.2 MW", supply_temp = "40 degC"}]

[[events]]
zone = "dc1.hall1"
start = 1000
end = 2000
reduce_percent = 50
"""


def read(tmp_path, text):
    path = tmp_path / "site.toml"
    path.write_text(text)
    return read_site(path)[0]


def test_quantities_are_plain_numbers_in_base_units(tmp_path):
    site = read(tmp_path, SITE)
    kind, plant = site.node_types["h100"], site.halls[0].plants[1]
    assert [mode.name for mode in kind.modes] == ["full", "eco"]
    assert (kind.idle_power_w, kind.safe_cap_w, kind.max_power_w) == (2000.0, 2000.0, 10_200.0)
    assert (plant.name, plant.capacity_w, plant.supply_temp_c, plant.cop) == ("plant2", 1.2e6, 40.0, 6.0)
    assert site.ramp_up_w_per_s == pytest.approx(5e6 / 60)
    assert all(type(value) is float for value in (plant.capacity_w, kind.idle_power_w, site.halls[0].power_limit_w))


def test_a_dot_in_a_hall_name_is_a_name_like_any_other(tmp_path):
    index = SiteIndex.of(read(tmp_path, SITE))
    assert index.hall_of("dc1.hall1-r1-k02-n01").zone == index.hall_of("gn1").zone == "dc1.hall1"
    assert index.zones_above("dc1.hall1/r1/k01") == ("dc1.hall1", "dc1.hall1/r1", "dc1.hall1/r1/k01", "dc1.feed")
    assert index.budget_at("dc1.hall1", 1500.0) == 45e3
    assert index.budget_at("dc1.hall1", 2500.0) == 90e3


def test_a_hall_with_brackets_needs_node_names_of_its_own(tmp_path):
    """`hall[1]-r1-k01-n01` would be read as the range `hall1-r1-k01-n01`, and no plan of the site would hold."""
    text = SITE.replace('"dc1.hall1"', '"hall[1]"').replace('"dc1.hall1/r1"', '"hall[1]/r1"')
    with pytest.raises(Rejected, match=r"halls\[0\].rows\[0\].racks\[0\].nodes.*2.*name the nodes"):
        read(tmp_path, text)
    named = text.replace("count = 2, nodes = 2", 'nodes = "gn[3-4]"')
    assert read(tmp_path, named).halls[0].zone == "hall[1]"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"1.2 MW", s',
            '"1.2 MVA", s',
            "halls[0].cooling[1].capacity: '1.2 MVA': must be a number and a unit of W",
        ),
        ('"1.2 MW", s', "5, s", "halls[0].cooling[1].capacity: 5: must be text with a unit, such as '1.2 MW'"),
        (
            '"dry_cooler"',
            '"no_such_plant"',
            "cooling[1].kind: 'no_such_plant': must be one of fixed, dry_cooler, tower",
        ),
        ('"40 degC"', '"40 degC", serves = "oil"', "cooling[1].serves: 'oil': must be one of all, liquid, air"),
        ('"40 degC"', '"40 degC", cop = 0.1', "halls[0].cooling[1].cop: 0.1: must be a number from 0.5 to 100"),
        ("speed = 1.0", 'speed = 1.0, kind = "warp"', "modes[1].kind: 'warp': must be one of power_limit, clock_lock"),
        ("gpus = 8", "gpus = 0", "node_types.h100.gpus: 0: must be a whole number from 1 to 1024"),
        ('"10.2 kW"', '"1 kW"', "node_types.h100.max_power: '1 kW': must be above idle_power (2 kW)"),
        ("full = 0.9", "full = 90.0", "job_classes.pretrain.draw.full: 90.0: must be a number from 0.001 to 10"),
        ("full = 0.9", "turbo = 0.9", "job_classes.pretrain.draw.turbo: 'turbo': must be one of the modes eco, full"),
        ("count = 2", "count = 0", "rows[0].racks[0].count: 0: must be a whole number from 1 to 100000"),
        ('"5 MW/min"', '"5 MW"', "site.ramp_up: '5 MW': must be a power per time, such as '5 MW/min'"),
        ('"30 kW"', '"3 kW"', "dc1.hall1/r2/k01.power_limit: '3 kW': must be at least the zone's idle load of 4 kW"),
    ],
)
def test_a_refusal_names_file_field_value_and_what_is_allowed(tmp_path, old, new, said):
    assert old in SITE
    with pytest.raises(Rejected) as caught:
        read(tmp_path, SITE.replace(old, new, 1))
    assert str(tmp_path / "site.toml") in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "racks"),
    [
        ('node_type = "h100"', ["k01"]),
        ('node_type = "h100", count = 2', ["k01", "k02"]),
        ('node_type = "h100", name = "k"', ["k"]),
        ('node_type = "h100", name = "a", count = 2', ["a01", "a02"]),
    ],
)
def test_racks_are_numbered_unless_a_single_one_has_a_name(tmp_path, entry, racks):
    text = SITE.replace('{node_type = "h100", count = 2, nodes = 2}', f"{{{entry}, nodes = 2}}", 1)
    row = read(tmp_path, text).halls[0].rows[0]
    assert [rack.zone for rack in row.racks] == [f"dc1.hall1/r1/{name}" for name in racks]
