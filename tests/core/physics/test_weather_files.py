"""Weather files: typical years over the calendar, missing codes, order, age; and the wet bulb."""

import csv
import gzip
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall.physics.psychrometrics import pressure_pa, wet_bulb_c
from powerhall.physics.weather_files import WeatherRules, read_weather
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import parse_time

HEAD = "LOCATION,X,Y,Z,SRC,1,10.0,20.0,{zone},{altitude}\n" + "FILLER\n" * 7


def epw_row(moment, dry, humidity=50.0, pressure=101_325, minute=60):
    """Write a record whose interval begins at `moment`."""
    return (
        f"{moment.year},{moment.month},{moment.day},{moment.hour + 1},{minute},flags,{dry},9.9,{humidity},{pressure}\n"
    )


def year(first, hours, value, per_hour=1, zone=0, altitude=0):
    """Write an EPW file of hours from `first`; `value` gives the dry bulb of each record's start."""
    rows = []
    moment = first
    for _ in range(hours):
        for part in range(per_hour):
            at = moment + timedelta(hours=part / per_hour)
            rows.append(epw_row(moment, value(at), minute=60 * (part + 1) // per_hour))
        moment += timedelta(hours=1)
    return HEAD.format(zone=zone, altitude=altitude) + "".join(rows)


def by_day(moment):
    """A dry bulb that names its day and hour of the year, below 60 degC."""
    return round(moment.month + moment.day / 100 + (moment.hour + moment.minute / 60) / 10_000, 6)


def at(path, text, hours=1, rules=None):
    start = parse_time(text)
    return read_weather(path, start, start + hours * 3600, rules)


FULL = year(datetime(2019, 1, 1, tzinfo=UTC), 8760, by_day)
LEAP = year(datetime(2020, 1, 1, tzinfo=UTC), 8784, by_day)
JULY = year(datetime(2018, 7, 1, tzinfo=UTC), 8760, by_day)
HALF = year(datetime(2019, 1, 1, tzinfo=UTC), 8760, by_day, per_hour=2)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([(FULL, 1), (LEAP, 1), (JULY, 1), (HALF, 2)]),
    st.integers(int(parse_time("2024-01-01")), int(parse_time("2029-12-31"))),
    st.integers(-12, 14),
)
def test_a_typical_year_holds_at_every_hour_of_every_year(tmp_path_factory, file, start, zone):
    text, per_hour = file
    path = tmp_path_factory.mktemp("w") / "w.epw"
    path.write_text(text.replace(",20.0,0,", f",20.0,{zone},"))
    found = read_weather(path, start, start + 36 * 3600)
    assert not found.coverage.uncovered(start, start + 36 * 3600)
    for hour in range(36):
        time_s = start + hour * 3600
        local = datetime.fromtimestamp(time_s, UTC) + timedelta(hours=zone)
        local = local.replace(minute=0 if per_hour == 1 or local.minute < 30 else 30, second=0, microsecond=0)
        if (local.month, local.day) == (2, 29) and text is not LEAP:
            local = local.replace(day=28)
        assert found.dry_bulb.at(time_s) == by_day(local)


@pytest.mark.parametrize("start", ["2026-12-31T12:00Z", "2028-02-28T12:00Z", "2027-12-31T20:00Z"])
def test_across_new_year_and_on_29_february_the_day_goes_on(tmp_path, start):
    (tmp_path / "w.epw").write_text(year(datetime(2019, 1, 1, tzinfo=UTC), 8760, lambda t: 10.0 + t.hour))
    found = at(tmp_path / "w.epw", start, 36)
    first = int(start[11:13])
    assert found.dry_bulb.slots(int(parse_time(start)), 3600, 36) == tuple(10.0 + (first + h) % 24 for h in range(36))


def test_a_file_of_part_of_the_year_covers_that_part(tmp_path):
    (tmp_path / "w.epw").write_text(year(datetime(2019, 6, 1, tzinfo=UTC), 24 * 30, lambda t: 30.0))
    assert not at(tmp_path / "w.epw", "2026-06-10T00:00Z", 24).coverage.uncovered(0, 0)
    winter = at(tmp_path / "w.epw", "2026-06-29T00:00Z", 24 * 5)
    end = parse_time("2026-07-01T00:00Z")
    assert winter.coverage.end_s == end
    assert winter.dry_bulb.at(end + 1800) == 30.5
    assert winter.dry_bulb.at(end + 60 * 3600) == 45.0
    with pytest.raises(Rejected, match=r"w\.epw"):
        at(tmp_path / "w.epw", "2026-12-10T00:00Z", 24)


def test_missing_codes_are_bridged_or_taken_at_the_worst(tmp_path):
    def value(moment):
        return (
            99.9
            if (moment.day == 2 and moment.hour in (3, 4)) or (moment.day == 3 and moment.hour >= 12)
            else moment.hour
        )

    (tmp_path / "w.epw").write_text(year(datetime(2019, 1, 1, tzinfo=UTC), 24 * 6, value))
    found = at(tmp_path / "w.epw", "2026-01-01T00:00Z", 24 * 5)
    assert found.dry_bulb.at(parse_time("2026-01-02T03:30Z")) == 5
    assert found.coverage.gaps == ((parse_time("2026-01-03T12:00Z"), parse_time("2026-01-04T00:00Z")),)
    held = [found.dry_bulb.at(parse_time(f"2026-01-03T{h}:30Z")) for h in range(12, 24)]
    assert min(held) > 23
    assert max(found.dry_bulb.values) < 40


def test_a_csv_with_the_newest_row_first_is_read_whole(tmp_path):
    rows = [f"2026-11-28T{h:02d}:00Z,{h},{h / 2}\n" for h in range(24)]
    (tmp_path / "w.csv").write_text("time,dry_bulb_c,wet_bulb_c\n" + "".join(reversed(rows)))
    found = at(tmp_path / "w.csv", "2026-11-28T00:00Z", 24)
    assert found.dry_bulb.slots(int(parse_time("2026-11-28T00:00Z")), 3600, 24) == tuple(map(float, range(24)))
    assert found.coverage.rows == 24


def test_weather_that_ended_days_ago_is_warm_and_told(tmp_path):
    (tmp_path / "w.csv").write_text("time,dry_bulb_c,wet_bulb_c\n2026-11-20T00:00Z,5,3\n2026-11-20T03:00Z,4,2\n")
    found = at(tmp_path / "w.csv", "2026-11-28T08:00Z", 24)
    now = parse_time("2026-11-28T08:00Z")
    assert found.dry_bulb.at(now) == 5 + 15
    assert found.wet_bulb.at(now) == 3 + 15
    assert "ended at 2026-11-20T06:00Z, 8 days before the plan" in found.coverage.trouble(now, now + 3600)
    held = at(tmp_path / "w.csv", "2026-11-28T08:00Z", 24, WeatherRules(outside="hold_last"))
    assert held.dry_bulb.at(now) == 4


def test_humidity_as_a_share_of_one_is_refused(tmp_path):
    """As percent 0.45 would be the driest air on Earth, and any evaporative cooler would hold its load."""
    head = "time,dry_bulb_c,humidity_percent\n"
    (tmp_path / "w.csv").write_text(head + "2026-11-20T00:00Z,30,0.45\n2026-11-20T01:00Z,31,1\n")
    at_s = parse_time("2026-11-20T00:00Z")
    with pytest.raises(Rejected, match=r"w\.csv: humidity_percent: 1\.0: the highest must be in percent"):
        read_weather(tmp_path / "w.csv", at_s, at_s + 3600)
    (tmp_path / "w.csv").write_text(head + "2026-11-20T00:00Z,30,0.45\n2026-11-20T01:00Z,31,45\n")
    assert read_weather(tmp_path / "w.csv", at_s, at_s + 3600).coverage.rows == 2


def test_humidity_gives_the_wet_bulb_at_the_pressure_of_the_place(tmp_path):
    (tmp_path / "w.csv").write_text("time,temperature_2m,relative_humidity_2m,wetbulb_C_stull\n2026-11-20,35,20,1\n")
    low = at(tmp_path / "w.csv", "2026-11-20T00:00Z").wet_bulb.at(parse_time("2026-11-20T00:00Z"))
    high = at(tmp_path / "w.csv", "2026-11-20T00:00Z", rules=WeatherRules(altitude_m=2500)).wet_bulb.at(
        parse_time("2026-11-20T00:00Z")
    )
    assert low == pytest.approx(wet_bulb_c(35, 20))
    assert low - high > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "LOCATION\n",
        "",
        "time,dry_bulb_c,wet_bulb_c\n0,nan,3\n",
        "time,dry_bulb_c\n0,1\n",
        "time,dry_bulb_c,wet_bulb_c\n0,1e999,3\n",
        HEAD.format(zone=0, altitude=0) + "2019,13,1,1,60,x,1,1,1,1\n",
        HEAD.format(zone=0, altitude=0) + "2019,1,1,25,60,x,1,1,1,1\n",
        HEAD.format(zone=0, altitude=0) + "2019,1,1\n",
        HEAD.format(zone="x", altitude=0) + "2019,1,1,1,60,x,1,1,1,1\n",
    ],
)
def test_wrong_weather_is_refused(tmp_path, text):
    for name in ("w.csv", "w.epw"):
        (tmp_path / name).write_text(text)
        with pytest.raises(Rejected, match=name):
            read_weather(tmp_path / name, 0.0, 3600.0)


@given(st.floats(-40, 50), st.floats(1, 100), st.floats(0, 3500))
def test_the_wet_bulb_balances_the_heat_of_evaporation(dry, humidity, altitude):
    """At the wet bulb the cooling of the air evaporates what saturates it (ASHRAE Fundamentals 2017, 1, eq. 33)."""
    at_pa = pressure_pa(altitude)
    wet = wet_bulb_c(dry, humidity, at_pa)
    assert wet <= dry + 1e-6
    if wet > 1:
        vapour = humidity / 100 * saturation_pa(dry)
        ratio = 0.621945 * vapour / (at_pa - vapour)
        full = 0.621945 * saturation_pa(wet) / (at_pa - saturation_pa(wet))
        balance = ((2501 - 2.326 * wet) * full - 1.006 * (dry - wet)) / (2501 + 1.86 * dry - 4.186 * wet)
        assert balance == pytest.approx(ratio, abs=3e-4)


def saturation_pa(temp_c):
    """Magnus formula (WMO 2014): within 0.3 % above freezing."""
    return 611.2 * 2.718281828 ** (17.62 * temp_c / (243.12 + temp_c))


def test_the_real_typical_year_has_hot_afternoons(data_dir):
    start = parse_time("2019-07-01T00:00-07:00")
    path = data_dir / "weather" / "USA_AZ_Phoenix-Sky.Harbor.epw.gz"
    found = read_weather(path, start, start + 86_400)
    day = found.dry_bulb.slots(int(start), 3600, 24)
    assert 38 < max(day) < 50
    assert day.index(max(day)) in range(12, 19), "the hottest hour is in the local afternoon"
    with gzip.open(path, "rt") as file:
        row = next(cells for cells in csv.reader(file) if cells[1:4] == ["7", "1", "16"])
    assert found.dry_bulb.at(start + 15 * 3600) == float(row[6])


@pytest.mark.parametrize("zone", ["1e18", "-1e12", "25", "-700", "nan"])
def test_a_time_zone_that_no_place_has_is_refused(tmp_path, zone):
    """Hours that are minutes by mistake would move the weather by weeks; larger ones have no date at all."""
    path = tmp_path / "w.epw"
    path.write_text(year(datetime(2019, 1, 1, tzinfo=UTC), 48, by_day, zone=zone))
    with pytest.raises(Rejected, match=r"line 1: .*time zone"):
        at(path, "2024-01-01")
