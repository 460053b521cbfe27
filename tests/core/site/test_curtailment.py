"""Events lower limits for their time, ramps spread the change, and files of events are read or refused."""

import time
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.runtime.errors import Rejected
from powerhall.site.curtailment import STEP_S, Event, Ramp, curtailed, parse_ramp, read_events
from powerhall.timeseries import Series, parse_time

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


PIECE = st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(1, 90))


@given(st.lists(PIECE, max_size=8), st.lists(st.integers(0, 100), min_size=1, unique=True))
def test_the_lowest_of_all_events_holds_at_every_moment(pieces, times):
    base = Series(tuple(float(t) for t in sorted(times)), tuple(50.0 + t for t in range(len(times))))
    events = [Event("z", float(start), float(start + length), float(level)) for start, length, level in pieces]
    found = curtailed(base, events, Ramp(None, None))
    for time_s in range(120):
        levels = [event.limit_w for event in events if event.start_s <= time_s < event.end_s]
        assert found.at(time_s) == min([base.at(time_s), *levels])


def test_a_slow_ramp_of_many_events_takes_no_minutes():
    base = Series((0.0,), (1e9,))
    events = [Event("z", 1e9 + n * 1e6, 1e9 + n * 1e6 + 60.0, 1.0) for n in range(4)]
    began_s = time.monotonic()
    assert len(curtailed(base, events, Ramp(0.1, 0.1)).times_s) > 50_000
    assert time.monotonic() - began_s < 10.0


def read(tmp_path, text, name="e.json", zone=None):
    (tmp_path / name).write_text(text)
    return read_events(tmp_path / name, "site", zone)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        *[("PT1H", 3600), ("P1DT30M", 88_200), ("PT90S", 90), ("P1W", 604_800), ("PT1.5H", 5400), ("PT1,5H", 5400)],
        *[("PT0.5S", 0.5), ("P0.5D", 43_200), ("pt1h", 3600), ("P1M", 31 * 86_400), ("P1Y", 365 * 86_400)],
        *[("P1MT1H", 31 * 86_400 + 3600), ("P13M", 396 * 86_400), ("P1W2D", 9 * 86_400)],
    ],
)
def test_durations_may_be_those_of_iso_8601(tmp_path, duration, seconds):
    (event,) = read(tmp_path, f'[{{"start": 1000, "duration": "{duration}", "power_limit": "30 kW"}}]')
    assert event.end_s - event.start_s == seconds


def test_a_month_is_one_of_the_sites_calendar(tmp_path):
    text = '[{"start": "2026-01-31T12:00", "duration": "P1M", "power_limit": "30 kW"}]'
    (event,) = read(tmp_path, text)
    assert event.end_s == parse_time("2026-02-28T12:00Z")
    text = text.replace("01-31", "03-01")
    (event,) = read(tmp_path, text, zone=ZoneInfo("Europe/Berlin"))
    assert event.end_s == parse_time("2026-04-01T12:00+02:00")


@pytest.mark.parametrize(
    ("duration", "why"),
    [
        *[("PT", "a number and a unit"), ("P", "a number and a unit"), ("PT1X", "a number and a unit")],
        *[("-PT1H", "not be negative"), ("-P1M", "not be negative"), ("PT1.5H30M", "fraction in its last part")],
        *[("P0.5M", "fraction in its last part"), ("P9999Y", "year 10000")],
    ],
)
def test_durations_that_are_none_are_refused(tmp_path, duration, why):
    with pytest.raises(Rejected, match=f"must .*{why}|must {why}"):
        read(tmp_path, f'[{{"start": 1000, "duration": "{duration}", "power_limit": "30 kW"}}]')


@pytest.mark.parametrize("duration", ['"0 min"', '"PT0S"', '"0"', "0"])
def test_an_event_of_no_duration_has_no_end(tmp_path, duration):
    (event,) = read(tmp_path, f'[{{"start": 1000, "duration": {duration}, "power_limit": "30 kW"}}]')
    assert event.end_s > 4e9
    assert curtailed(Series((0.0,), (1e5,)), [event], Ramp()).at(3e9) == 30_000


def test_reductions_in_percent_and_in_kw(tmp_path):
    text = "start,end,reduce_percent,reduce_by\n1000,2000,20%,\n1000,2000,,20 kW\n"
    percent, power = read(tmp_path, text, "e.csv")
    assert (percent.level_w(1e5), power.level_w(1e5), power.level_w(1e4)) == (80_000, 80_000, 0)


def test_of_one_event_the_highest_modification_counts_in_whatever_order(tmp_path):
    row = '{"start": 1000, "duration": "1 h", "event_id": "a", "power_limit": "%s", "modification_number": %d%s}'
    rows = [row % ("30 kW", 2, ""), row % ("20 kW", 1, ""), row % ("10 kW", 2, "")]
    assert [e.limit_w for e in read(tmp_path, f"[{','.join(rows)}]")] == [10_000]
    gone = row % ("30 kW", 3, ', "status": "cancelled"')
    assert read(tmp_path, f"[{gone},{','.join(rows)}]") == ()


@pytest.mark.parametrize(
    ("rows", "left"),
    [
        ([("hall1", 0, "active"), ("hall2", 0, "active")], ["hall1", "hall2"]),
        ([("hall1", 0, "active"), ("hall2", 0, "active"), ("hall2", 1, "cancelled")], ["hall1"]),
        ([("hall1", 2, "active"), ("hall2", 0, "active"), ("", 1, "cancelled")], ["hall1"]),
        ([("", 1, "cancelled"), ("hall1", 0, "active"), ("hall2", 1, "active"), ("", 0, "active")], ["hall2"]),
        ([("hall1", 0, "active"), ("hall2", 0, "active"), ("", 0, "completed")], []),
        ([("hall1", 0, "active"), ("site", 0, "active"), ("site", 1, "cancelled")], ["hall1"]),
    ],
)
def test_one_event_may_limit_several_zones(tmp_path, rows, left):
    """Each by its own modifications; cancelled without a zone it ends in all of them."""
    text = "start,duration,power_limit,event_id,zone,modification_number,status\n"
    text += "".join(f"1000,1 h,30 kW,a,{zone},{number},{status}\n" for zone, number, status in rows)
    assert [event.zone for event in read(tmp_path, text, "e.csv")] == left


def test_a_test_event_limits_nothing(tmp_path):
    assert read(tmp_path, '[{"start": 1000, "duration": "1 h", "power_limit": "1 kW", "test_event": true}]') == ()


@pytest.mark.parametrize("told", ["true", '"yes"', '"a drill"'])
def test_a_test_of_an_event_leaves_the_event_as_it_is(tmp_path, told):
    row = '{"start": 1000, "duration": "1 h", "power_limit": "%s", "event_id": "a", "modification_number": %d%s}'
    real, drill = row % ("30 kW", 1, ', "test_event": "false"'), row % ("1 kW", 2, f', "test_event": {told}')
    for rows in (f"{real},{drill}", f"{drill},{real}"):
        assert [event.limit_w for event in read(tmp_path, f"[{rows}]")] == [30_000]


def test_times_may_name_their_zone(tmp_path):
    text = "start,duration,power_limit\n2026-10-25T02:30:00 Europe/Berlin,60 min,30kW\n2026-11-28 10:00,60 min,30 kW\n"
    first, second = read(tmp_path, text, "e.csv")
    assert (first.start_s, second.start_s) == (1_792_888_200, 1_795_860_000)
    with pytest.raises(Rejected, match="IANA time zone"):
        read(tmp_path, "start,duration,power_limit\n2026-10-25T02:30 Europe/Nowhere,1 h,3 kW\n", "e.csv")
