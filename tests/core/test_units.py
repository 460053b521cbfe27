"""Quantities with units: accepted texts, refused texts, and messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.units import format_energy, format_power, parse_duration, parse_energy, parse_power, parse_temperature


@pytest.mark.parametrize(
    ("text", "power_w"), [("1.2 MW", 1.2e6), ("350 W", 350.0), ("350W", 350.0), ("0 kW", 0.0), ("1e-3 GW", 1e6)]
)
def test_power_reads_number_and_unit(text, power_w):
    assert parse_power(text) == pytest.approx(power_w)


@pytest.mark.parametrize(
    "text", ["12", "MW", "1.2 mW", "1,2 MW", "nan W", "inf W", "1.2 MWh", "", "-3 MW", "1 MW 2", "1e999 W"]
)
def test_a_text_that_is_no_power_is_refused(text):
    with pytest.raises(ValueError, match="must"):
        parse_power(text)


def test_temperature_converts_to_celsius():
    assert parse_temperature("17 degC") == 17.0
    assert parse_temperature("290.15 K") == pytest.approx(17.0)
    assert parse_temperature("62.6 degF") == pytest.approx(17.0)
    assert parse_temperature("-5 degC") == -5.0
    with pytest.raises(ValueError, match="absolute zero"):
        parse_temperature("-1 K")


def test_energy_and_duration():
    assert parse_energy("2 kWh") == 7.2e6
    assert parse_duration("90 min") == 5400.0
    with pytest.raises(ValueError, match="negative"):
        parse_duration("-1 s")


@given(st.floats(min_value=1.0, max_value=9.99e11))
def test_written_powers_read_back_within_the_digits_shown(power_w):
    assert parse_power(format_power(power_w)) == pytest.approx(power_w, rel=1e-3)


def test_energy_is_written_in_watt_hours():
    assert format_energy(7.2e9) == "2 MWh"
