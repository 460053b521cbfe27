"""Events lower limits for their time, ramps spread the change, and files of events are read or refused."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.runtime.errors import Rejected
from powerhall.site.curtailment import STEP_S, Event, Ramp, curtailed, parse_ramp, read_events
from powerhall.timeseries import Series

BASE = Series((0.0,), (100.0,))


def test_an_event_lowers_the_limit_for_its_time_only():
    series = curtailed(BASE, [Event("z", 3000.0, 6000.0, share=0.25)], Ramp())
    assert [series.at(t) for t in (0, 2999, 3000, 5999, 6000)] == [100.0, 100.0, 75.0, 75.0, 100.0]


def test_events_that_overlap_leave_the_lowest():
    series = curtailed(BASE, [Event("z", 0.0, 5000.0, 60.0), Event("z", 3000.0, 8000.0, 40.0)], Ramp())
    assert [series.at(t) for t in (100, 3000, 5000, 8000)] == [60.0, 40.0, 40.0, 100.0]


EVENTS = st.builds(
    lambda start, length, limit: Event("z", float(start), float(start + length), float(limit)),
    st.integers(20_000, 40_000),
    st.integers(600, 5000),
    st.integers(10, 150),
)


@given(st.lists(EVENTS, min_size=1, max_size=3), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_no_step_is_steeper_than_the_ramp_and_no_event_is_exceeded(events, down, up):
    series = curtailed(BASE, events, Ramp(down, up))
    for event in events:
        for time_s in (event.start_s, (event.start_s + event.end_s) / 2, event.end_s - 1.0):
            assert series.at(time_s) <= min(100.0, event.limit_w)
    if len(events) == 1:
        for before, after in pairwise(series.values):
            assert after - before <= up * STEP_S + 1e-9
            assert before - after <= down * STEP_S + 1e-9


def test_ramps_are_read_with_their_units():
    assert parse_ramp("6 MW/min") == pytest.approx(1e5)
    for text in ("6 MW", "6 MW/parsec", "0 W/s", "-1 MW/min"):
        with pytest.raises(ValueError, match="must"):
            parse_ramp(text)


CSV = "event_id,status,start,end,duration,zone,power_limit,reduce_percent\n"


def test_events_are_read_from_csv_and_json_alike(tmp_path):
    (tmp_path / "e.csv").write_text(
        CSV + "a,active,2026-07-01T15:00Z,,3 h,,,25\nb,cancelled,2026-07-01T15:00Z,,3 h,,,25\nc,,1000,2000,,h1,3 MW,\n"
    )
    (tmp_path / "e.json").write_text(
        '[{"start": "2026-07-01T15:00Z", "duration": "3 h", "reduce_percent": 25},'
        ' {"start": 1000, "end": 2000, "zone": "h1", "power_limit": "3 MW"}]'
    )
    events = read_events(tmp_path / "e.csv", "site")
    assert events == read_events(tmp_path / "e.json", "site")
    assert [event.zone for event in events] == ["site", "h1"]
    assert events[0].end_s - events[0].start_s == 3 * 3600
    assert (events[0].share, events[1].limit_w) == (0.25, 3e6)


@pytest.mark.parametrize(
    "row",
    [
        "a,,soon,2000,,,,25",
        "a,,1000,900,,,,25",
        "a,,1000,2000,,,,",
        "a,,1000,2000,,,3,",
        "a,,1000,2000,,,,140",
        "a,,1000,2000,,,,x",
    ],
)
def test_a_wrong_event_is_refused_by_row_and_field(tmp_path, row):
    (tmp_path / "e.csv").write_text(CSV + row + "\n")
    with pytest.raises(Rejected, match=r"e\.csv: (event a|line 2)"):
        read_events(tmp_path / "e.csv", "site")
