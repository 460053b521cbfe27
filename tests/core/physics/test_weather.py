"""Weather files and the wet bulb."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.physics.weather import read_weather, wet_bulb_c
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import parse_time


@given(st.floats(-10, 45), st.floats(10, 99))
def test_the_wet_bulb_is_not_far_above_the_dry_bulb(dry, humidity):
    assert wet_bulb_c(dry, humidity) <= dry + 1.2  # the formula's stated error is below 1 K in this range


def test_the_wet_bulb_of_the_source_s_own_example():
    assert wet_bulb_c(20.0, 50.0) == pytest.approx(13.7, abs=0.05)


@pytest.mark.parametrize("text", ["LOCATION\n", "", "time,dry_bulb_c,wet_bulb_c\n0,nan,3\n", "time,dry_bulb_c\n0,1\n"])
def test_wrong_weather_is_refused(tmp_path, text):
    for name in ("w.csv", "w.epw"):
        (tmp_path / name).write_text(text)
        with pytest.raises(Rejected, match=name):
            read_weather(tmp_path / name, 0.0)


def test_a_typical_year_is_laid_over_the_year_of_the_plan(data_dir):
    start = parse_time("2019-07-01T00:00-07:00")
    dry, wet = read_weather(data_dir / "weather" / "USA_AZ_Phoenix-Sky.Harbor.epw.gz", start)
    assert len(dry.times_s) == 8760
    day = dry.slots(int(start), 3600, 24)
    assert 38 < max(day) < 50
    assert day.index(max(day)) in range(12, 19), "the hottest hour is in the local afternoon"
    assert all(w <= d for d, w in zip(dry.values, wet.values, strict=True))
