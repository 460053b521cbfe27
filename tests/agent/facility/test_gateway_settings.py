"""facility.toml and maps: refused by file, field and value; the maps that come with Powerhall are sound."""

import pytest

from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected
from powerhall_agent.facility.gateway_settings import load_facility
from powerhall_agent.facility.registry import load_map, map_names

GOOD = """site = "north"
[[device]]
name = "feed-a"
protocol = "modbus"
address = "127.0.0.1:502"
map = "eastron_sdm630"
"""


def load(tmp_path, text):
    (tmp_path / "facility.toml").write_text(text)
    return load_facility(tmp_path / "facility.toml")


def test_a_good_file_is_read(tmp_path):
    settings, maps = load(tmp_path, GOOD)
    assert settings.device[0].host == "127.0.0.1"
    assert settings.device[0].port(1) == 502
    assert [p.name for p in maps["feed-a"].points] == ["power_w", "frequency_hz", "energy_j"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("site", "sight"), ["sight"]),
        (("address =", "adress ="), ["device", "adress"]),
        (('"127.0.0.1:502"', "502"), ["device[0].address", "str", "int"]),
        (('"127.0.0.1:502"', '"http://x"'), ["feed-a", "address", "http://x", "HOST"]),
        (('"modbus"', '"no_such_protocol"'), ["device[0].protocol", "no_such_protocol"]),
        (('"eastron_sdm630"', '"no_such"'), ["feed-a", "no_such", "eastron_sdm630"]),
        (('"eastron_sdm630"', '"apc_rpdu2"'), ["device[0].map", "apc_rpdu2", "snmp"]),
        (('"eastron_sdm630"', '"eastron_sdm630"\ninterval_s = "fast"'), ["device[0].interval_s", "float", "str"]),
        (('"eastron_sdm630"', '"eastron_sdm630"\ninterval_s = 0'), ["device[0].interval_s", "0.1"]),
        (('"eastron_sdm630"', '"eastron_sdm630"\nunit = 256'), ["device[0].unit", "255"]),
        (('"eastron_sdm630"', '"eastron_sdm630"\nuser = "x"'), ["device", "user"]),
        (('"eastron_sdm630"', '"eastron_sdm630"\nweather = true'), ["device[0].weather", "dry_bulb_c"]),
    ],
)
def test_invalid_settings_are_refused_with_file_field_and_value(tmp_path, change, says):
    with pytest.raises(PowerhallError) as caught:
        load(tmp_path, GOOD.replace(*change))
    text = str(caught.value)
    assert "\n" not in text
    for word in ["facility.toml", *says]:
        assert word in text


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('protocol = "redfish"\naddress = "http://10.0.0.1"\nuser = "u"\npassword_file = "p"', "must be https"),
        ('protocol = "redfish"\naddress = "https://10.0.0.1"\nuser = "u"', "go together"),
        ('protocol = "redfish"\naddress = "10.0.0.1"', "https://HOST"),
        ('protocol = "snmp"\naddress = "10.0.0.1"\nversion = "2c"', "community_file"),
        ('protocol = "snmp"\naddress = "10.0.0.1"', "needs user"),
        ('protocol = "snmp"\naddress = "10.0.0.1"\nuser = "u"\nprivacy_file = "p"', "needs auth_file"),
    ],
)
def test_logins_that_are_half_or_unsafe_are_refused(tmp_path, lines, says):
    with pytest.raises(Rejected, match=says):
        load(tmp_path, f'site = "n"\n[[device]]\nname = "d"\nmap = "x"\n{lines}\n')


def test_a_duplicate_name_is_refused(tmp_path):
    with pytest.raises(Rejected, match=r"device\.name: 'feed-a'"):
        load(tmp_path, GOOD + GOOD.partition("\n")[2])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('"power_w"', '"power"'), "must end in its unit"),
        (("min = 0", "min = 9"), "must be below max"),
        (("address = 1", "adress = 1"), "adress"),
        (('"u16"', '"u8"'), "u8"),
        (("address = 1", "address = 65536"), "65535"),
        (("address = 1", "address = 1\nscale = 0"), "must not be zero"),
        (("max = 5", ""), "max"),
        (('"modbus"', '"no_such_protocol"'), "protocol"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_by_its_own_file(tmp_path, change, says):
    text = """protocol = "modbus"
source = "own"
[[point]]
name = "power_w"
kind = "input"
type = "u16"
address = 1
min = 0
max = 5
"""
    (tmp_path / "own.toml").write_text(text)
    assert load_map("own.toml", tmp_path).points[0].name == "power_w"
    (tmp_path / "own.toml").write_text(text.replace(*change))
    with pytest.raises(Rejected, match=says) as caught:
        load_map("own.toml", tmp_path)
    assert "own.toml" in str(caught.value)


@pytest.mark.parametrize("name", map_names())
def test_every_map_of_ours_loads_and_names_its_source(name, tmp_path):
    found = load_map(name, tmp_path)
    assert len(found.source) > 20
    assert any(point.name.endswith(("power_w", "dry_bulb_c")) for point in found.points)


def test_a_missing_extra_is_one_line(monkeypatch, tmp_path):
    import sys

    from powerhall_agent.facility.registry import open_reader

    settings, maps = load(tmp_path, GOOD)
    monkeypatch.setitem(sys.modules, "pymodbus.client", None)
    with pytest.raises(ConfigError, match=r"pip install 'powerhall\[facility\]'"):
        open_reader(settings.device[0], maps["feed-a"])
