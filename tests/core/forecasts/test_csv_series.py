"""Files of prices, carbon and budgets against a plain reader: order, gaps, zones, repeats, missing values."""

import gzip
import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall.forecasts.csv_series import BUDGET, CARBON, PRICES, read_forecast
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import parse_time

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [ZoneInfo(n) for n in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")]

DAYS = ["2026-10-24", "2026-03-28", "2026-11-01", "2026-03-08", "2026-04-05", "2028-02-28", "2026-12-31"]


def read(tmp_path, text, kind=PRICES, zone=None, outside="worst_case"):
    path = tmp_path / "f.csv"
    path.write_text(text)
    return read_forecast(path, kind, zone, outside)


class Plain:
    """A reference: every value holds one step; a hole of up to 3 h holds the higher of its sides; else None."""

    def __init__(self, known, step_s):
        self.known = dict(known)
        self.step_s = step_s

    def at(self, time_s):
        before = [t for t in self.known if t <= time_s]
        if before and time_s < max(before) + self.step_s:
            return self.known[max(before)]
        after = [t for t in self.known if t > time_s]
        if not before or not after:
            return None
        hole = min(after) - max(before) - self.step_s
        return max(self.known[max(before)], self.known[min(after)]) if hole <= 3 * 3600 else None


@st.composite
def files(draw):
    """A file of a zone's clock: hours or quarter hours over days with or without a change of the clock."""
    zone = draw(st.sampled_from(ZONES))
    day = draw(
        st.sampled_from(
            ["2026-10-24", "2026-03-28", "2026-11-01", "2026-03-08", "2026-04-05", "2028-02-28", "2026-12-31"]
        )
    )
    whole_hours = zone.key != "Australia/Lord_Howe"  # its clock goes back by half an hour: hours would be ambiguous
    step_s = draw(st.sampled_from([900, 1800, 3600] if whole_hours else [900, 1800]))
    start = datetime.fromisoformat(day).replace(tzinfo=zone).timestamp()
    count = draw(st.integers(30, 200))
    missing = draw(st.sets(st.integers(0, count - 1), max_size=min(12, count // 10)))
    if draw(st.booleans()):
        first = draw(st.integers(1, count - 2))
        missing |= set(range(first, min(count - 1, first + draw(st.integers(1, 20)))))
    texts = draw(st.lists(st.sampled_from(["", "NA", "n/a", "NaN", "-"]), min_size=1))
    rows, known = [], {}
    for i in range(count):
        time_s = start + i * step_s
        moment = datetime.fromtimestamp(time_s, UTC).astimezone(zone)
        value = i if i not in missing else None
        if value is not None:
            known[time_s] = float(value)
        rows.append((moment.strftime("%Y-%m-%d %H:%M:%S"), texts[i % len(texts)] if value is None else str(value)))
    order = draw(st.sampled_from(["as is", "newest first"]))
    return zone, step_s, start, count, known, rows if order == "as is" else rows[::-1]


@settings(max_examples=150, deadline=None)
@given(files())
def test_every_time_has_the_value_that_a_plain_reader_finds(tmp_path_factory, case):
    zone, step_s, start, count, known, rows = case
    if len(known) < 2:
        return
    text = "datetime_local,price\n" + "".join(f"{t},{v}\n" for t, v in rows)
    found = read(tmp_path_factory.mktemp("f"), text, zone=zone)
    plain = Plain(known, step_s)
    for i in range(-5, count + 5):
        time_s = start + (i + 0.5) * step_s
        wanted = plain.at(time_s)
        covered = not found.coverage.uncovered(time_s, time_s + 1)
        assert covered == (wanted is not None), (i, wanted, found.coverage)
        if wanted is not None:
            assert found.series.at(time_s) == wanted


@given(st.permutations(range(24)), st.lists(st.integers(0, 23), max_size=10))
def test_order_and_repeats_change_nothing(tmp_path_factory, order, repeats):
    rows = [f"2026-05-01T{h:02d}:00Z,{h * 10}\n" for h in range(24)]
    plain = read(tmp_path_factory.mktemp("f"), "time,price\n" + "".join(rows))
    mixed = "".join([rows[i] for i in order] + [rows[i].replace(",", ",-9") for i in repeats])
    found = read(tmp_path_factory.mktemp("f"), "time,price\n" + mixed)
    assert found.series == plain.series
    assert found.coverage.duplicates == len(repeats)


@pytest.mark.parametrize(("first", "second"), [("60", "90"), ("90", "60")])
def test_of_two_rows_of_one_time_the_worse_counts(tmp_path, first, second):
    """A line that was added to lower a budget, or to raise a price, must not be lost."""
    rows = f"2026-11-20T00:00Z,{first}\n2026-11-20T00:00Z,{second}\n2026-11-20T01:00Z,75\n"
    at_s = parse_time("2026-11-20T00:30Z")
    assert read(tmp_path, "time,power_kw\n" + rows, BUDGET).series.at(at_s) == 60e3
    assert read(tmp_path, "time,price\n" + rows).series.at(at_s) == 90


def test_the_hour_that_the_clock_shows_twice_is_read_in_order(tmp_path):
    text = "datetime_local,price\n" + "".join(
        f"2026-10-25T{h},{v}\n" for h, v in (("01:00", 1), ("02:00", 2), ("02:00", 3), ("03:00", 4))
    )
    series = read(tmp_path, text, zone=BERLIN).series
    assert [series.at(parse_time(f"2026-10-25T0{h}:30Z")) for h in (0, 1, 2)] == [2, 3, 4]


def test_an_hour_that_the_clock_leaves_out_does_not_displace_the_next_one(tmp_path):
    text = "time,price\n2026-03-29T01:00,1\n2026-03-29T02:00,99\n2026-03-29T03:00,3\n"
    assert read(tmp_path, text, zone=BERLIN).series.at(parse_time("2026-03-29T01:30Z")) == 3


def test_local_times_without_a_zone_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(Rejected, match=r"line 2: datetime_local: .*site\.timezone"):
        read(tmp_path, "datetime_local,price\n2026-03-29T01:00,1\n")
    assert read(tmp_path, "datetime_local,price\n2026-03-29T01:00+02:00,1\n").coverage.rows == 1


def test_outside_its_coverage_a_budget_is_its_lowest_and_a_price_its_mean(tmp_path):
    budget = read(tmp_path, "time,power_kw\n2026-11-20T00:00Z,60\n2026-11-20T03:00Z,90\n", BUDGET)
    late = parse_time("2026-11-28T08:00Z")
    assert budget.series.at(late) == 60_000
    assert budget.coverage.age_s(late) == late - parse_time("2026-11-20T06:00Z")
    assert "8 days before the plan" in budget.coverage.trouble(late, late + 3600)
    price = read(tmp_path, "time,price\n2026-11-20T00:00Z,10\n2026-11-20T01:00Z,30\n")
    assert price.series.at(late) == 20
    held = read(tmp_path, "time,price\n2026-11-20T00:00Z,10\n2026-11-20T01:00Z,30\n", outside="hold_last")
    assert held.series.at(late) == 30


def test_a_step_function_with_uneven_steps_has_no_gaps(tmp_path):
    text = "time,power_mw\n2026-01-01,10\n2026-02-14,12\n2026-07-01,9\n2026-07-15,12\n"
    found = read(tmp_path, text, BUDGET)
    assert found.coverage.gaps == ()
    assert found.series.at(parse_time("2026-06-30")) == 12e6


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("time,price\n", PRICES, "no rows"),
        ("time,price\n2026-01-01,NA\n", PRICES, "no values"),
        ("time,cost\n2026-01-01,1\n", PRICES, "must have a column"),
        ("when,price\n2026-01-01,1\n", PRICES, "must have a column"),
        ("time,price\nnoon,1\n", PRICES, "line 2: time: 'noon'"),
        ("time,price\n2026-01-01,much\n", PRICES, "line 2: price: 'much'"),
        ("time,price\n2026-01-01,inf\n", PRICES, "line 2: price: 'inf'"),
        ("time,power_kw\n2026-01-01,-5\n", BUDGET, "line 2: power_kw: '-5': must not be negative"),
        ("time,g_per_kwh\n2026-01-01,-5\n", CARBON, "must not be negative"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text, kind, match):
    with pytest.raises(Rejected, match=match) as refused:
        read(tmp_path, text, kind)
    assert "\n" not in str(refused.value)


def test_codes_for_missing_are_gaps_and_counted(tmp_path):
    hours = [(h, "10" if h < 5 or h > 12 else "-9999") for h in range(24)]
    found = read(tmp_path, "time,price\n" + "".join(f"2026-01-01T{h:02d}:00Z,{v}\n" for h, v in hours))
    assert found.coverage.missing == 8
    assert found.coverage.gaps == ((parse_time("2026-01-01T05:00Z"), parse_time("2026-01-01T13:00Z")),)
    assert not any(math.isinf(v) or v == -9999 for v in found.series.values)


def test_a_file_may_be_compressed_and_give_the_minutes_of_a_day(tmp_path):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = "".join(f"{(start + timedelta(minutes=i)).isoformat()},{i}\n" for i in range(1440))
    path = tmp_path / "f.csv.gz"
    path.write_bytes(gzip.compress(f"time,price\n{rows}".encode()))
    found = read_forecast(path, PRICES)
    assert found.coverage.step_s == 60
    assert found.series.at(start.timestamp() + 3605) == 60
