"""Step functions of time, and times as people write them."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.timeseries import Series, parse_time

STEPS = st.lists(st.tuples(st.integers(0, 5000), st.floats(-1e6, 1e6)), min_size=1, unique_by=lambda step: step[0])


@given(STEPS, st.integers(0, 4000), st.integers(1, 700), st.integers(1, 12))
def test_sampled_slots_lie_within_the_steps_that_they_cover(steps, start, slot, count):
    steps.sort()
    series = Series(tuple(float(t) for t, _ in steps), tuple(v for _, v in steps))
    low, mean, high = (series.slots(start, slot, count, pick) for pick in ("min", "mean", "max"))
    for i in range(count):
        seen = [series.at(start + i * slot + s) for s in range(slot)]
        assert low[i] == min(seen)
        assert high[i] == max(seen)
        assert low[i] - 1e-6 <= mean[i] <= high[i] + 1e-6
        assert mean[i] == pytest.approx(sum(seen) / slot, rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("text", ["", "noon", "nan", "inf", "2024-13-01"])
def test_a_wrong_time_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        parse_time(text)


def test_times_without_an_offset_are_utc_and_offsets_count():
    assert parse_time("1970-01-02") == 86_400
    assert parse_time("1970-01-01T01:00:00+01:00") == 0


@pytest.mark.parametrize("text", ["2026-01-01T24:00Z", "2026-01-01 24:00:00Z", "20260101T2400+00:00"])
def test_24_00_is_the_end_of_the_day(text):
    assert parse_time(text) == parse_time("2026-01-02T00:00Z")


def test_a_time_without_an_offset_is_local_to_a_given_zone():
    assert parse_time("2026-07-01T12:00", ZoneInfo("Europe/Berlin")) == parse_time("2026-07-01T10:00Z")
    assert parse_time("2026-07-01T12:00Z", ZoneInfo("Europe/Berlin")) == parse_time("2026-07-01T12:00Z")
