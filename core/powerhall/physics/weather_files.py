"""Weather from EnergyPlus weather files (EPW, a typical year laid over the calendar) or CSV."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path

from powerhall.forecasts.completion import Fill, Row, Steps, complete
from powerhall.forecasts.coverage import Coverage, Span
from powerhall.forecasts.csv_series import MISSING_TEXTS, Outside, column_of, hold_last, timed_rows
from powerhall.forecasts.local_time import LocalTimes, time_columns
from powerhall.physics.psychrometrics import preload, pressure_pa, wet_bulb_c
from powerhall.runtime.decode.bytes_in import read_text
from powerhall.runtime.decode.csv_table import read_csv
from powerhall.runtime.decode.numbers_in import finite, whole
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import Series

__all__ = ["Outdoor", "WeatherRules", "read_weather"]

RISE_K_PER_H = 0.5
"""How much warmer the air may have become per hour since the file's last value."""
MOST_RISE_K = 15.0
"""Most that the air is taken to be warmer than the highest value of the day beside a gap."""
_DAY_S = 86_400.0
_HOUR_S = 3600.0
_ZONES_H = (-12.0, 14.0)
_AROUND_S = 3 * _DAY_S
"""How much weather is read before and after a span, for gaps at its ends."""
_BELIEVED_C = (-90.0, 65.0)
"""Dry bulbs outside are codes for missing; so is 99.9, the code of EPW."""
_HUMIDITY = (0.0, 110.0)
_PRESSURE_PA = (31_000.0, 120_000.0)
_DRY = ("dry_bulb_c", "temperature_2m")
preload()
_WET = "wet_bulb_c"
_STULL = "wetbulb_C_stull"
"""Wet bulb by a formula for sea level: taken only where the file has no humidity."""
_HUMID = ("humidity_percent", "relative_humidity_percent", "relative_humidity_2m")
_PRESSURE = {"pressure_pa": 1.0, "pressure_hpa": 100.0, "surface_pressure": 100.0}


@dataclass(frozen=True, slots=True)
class WeatherRules:
    """How a file is read: the zone of naive times, the site's altitude, and what holds outside the coverage."""

    zone: tzinfo | None = None
    altitude_m: float | None = None
    outside: Outside = "worst_case"

    @property
    def fill(self) -> Fill:
        """The rule for the times that the file does not cover."""
        return hold_last if self.outside == "hold_last" else warmer


@dataclass(frozen=True, slots=True)
class Outdoor:
    """Dry bulb and wet bulb in degC over time, and what of it the file covers."""

    dry_bulb: Series
    wet_bulb: Series
    coverage: Coverage


_Values = tuple[float | None, float | None, float | None]
"""Dry bulb in degC, relative humidity in percent, pressure in Pa of a record of EPW; None where missing."""


@dataclass(frozen=True, slots=True)
class _Air:
    """Outdoor air at a time, None where it is missing."""

    dry_c: float | None
    wet_c: float | None


def warmer(before: Steps, after: Steps, span: Span) -> list[tuple[float, float]]:
    """Hold the highest value of the day beside a gap, and 0.5 K more for every hour away from it, up to 15 K."""
    start_s, end_s = span
    day = [v for t, v in reversed(before) if t > before[-1][0] - _DAY_S] if before else []
    day += [v for t, v in after if t < after[0][0] + _DAY_S] if after else []
    highest = max(day)
    steps: list[tuple[float, float]] = []
    time_s = start_s
    while time_s < end_s:
        hours = min(
            (time_s - start_s) / _HOUR_S + 1 if before else math.inf,
            (end_s - time_s) / _HOUR_S if after else math.inf,
        )
        steps.append((time_s, highest + min(MOST_RISE_K, RISE_K_PER_H * hours)))
        far = hours * RISE_K_PER_H >= MOST_RISE_K
        nearly_s = end_s - MOST_RISE_K / RISE_K_PER_H * _HOUR_S if after else end_s
        time_s = max(time_s + _HOUR_S, nearly_s) if far and time_s < nearly_s else time_s + _HOUR_S
    return steps


def read_weather(path: str | Path, start_s: float, end_s: float, rules: WeatherRules | None = None) -> Outdoor:
    """Return the weather around a span; a wrong file raises Rejected with file and line.

    An EPW file is a typical year in local standard time: it is laid over the calendar as often as needed. 29 February
    repeats the day before where the file has none. CSV needs a time, `dry_bulb_c`, and `wet_bulb_c` or
    `humidity_percent` (or the names of Open-Meteo); `tz_offset_s` is taken off naive times.
    """
    path, rules = Path(path), rules or WeatherRules()
    if ".epw" in path.name.lower():
        rows = list(_TypicalYear.read(path, rules).over(start_s - _AROUND_S, end_s + _AROUND_S))
    else:
        rows = _csv_rows(path, start_s, end_s, rules)
    return _outdoor(str(path), rows, rules)


def _outdoor(source: str, rows: Sequence[tuple[float, _Air]], rules: WeatherRules) -> Outdoor:
    if all(air.dry_c is None or air.wet_c is None for _, air in rows):
        raise Rejected(
            f"{source}: no weather near the plan's time: must have dry bulbs from {_BELIEVED_C[0]:g} to "
            f"{_BELIEVED_C[1]:g} degC, and wet bulb or humidity"
        )
    both = [(t, air if air.dry_c is not None and air.wet_c is not None else _Air(None, None)) for t, air in rows]
    dry: list[Row] = [(time_s, air.dry_c) for time_s, air in both]
    wet: list[Row] = [(time_s, air.wet_c) for time_s, air in both]
    forecast = complete(source, dry, max, rules.fill)
    return Outdoor(forecast.series, complete(source, wet, max, rules.fill).series, forecast.coverage)


def _believed(text: str | None, least: float, most: float) -> float | None:
    """Return the number of a cell; None where it is missing or outside what is believed."""
    text = (text or "").strip()
    if text.lower() in MISSING_TEXTS:
        return None
    value = finite(text)
    return value if least <= value <= most else None


def _air(dry_c: float | None, wet_c: float | None, humidity: float | None, at_pa: float) -> _Air:
    if dry_c is None or (wet_c is None and humidity is None):
        return _Air(None, None)
    if wet_c is None and humidity is not None:
        wet_c = wet_bulb_c(dry_c, humidity, at_pa)
    return _Air(dry_c, min(dry_c, wet_c if wet_c is not None else dry_c))


class _TypicalYear:
    """The records of an EPW file by day of the year, in local standard time."""

    def __init__(self, offset_s: float, days: dict[tuple[int, int], list[tuple[float, _Values]]], at_pa: float) -> None:
        self._offset_s = offset_s
        self._days = days
        self._at_pa = at_pa

    @staticmethod
    def read(path: Path, rules: WeatherRules) -> "_TypicalYear":
        lines = read_text(path).splitlines()
        location = lines[0].split(",") if lines else []
        try:
            zone_h, altitude_m = finite(location[8]), finite(location[9])
        except (ValueError, IndexError):
            raise Rejected(
                f"{path}: line 1: not an EPW weather file: must be LOCATION with the time zone in its 9th cell"
            ) from None
        if not _ZONES_H[0] <= zone_h <= _ZONES_H[1]:
            raise Rejected(f"{path}: line 1: time zone {zone_h:g}: must be hours ahead of UTC, -12 to 14")
        at_pa = pressure_pa(altitude_m if rules.altitude_m is None else rules.altitude_m)
        hours: dict[tuple[int, int, int], dict[int, list[_Values]]] = defaultdict(lambda: defaultdict(list))
        for line_number, line in enumerate(lines[8:], 9):
            if line.strip():
                key, year, values = _record(path, line_number, line)
                hours[key][year].append(values)
        if not hours:
            raise Rejected(f"{path}: no rows: must have hourly weather")
        days: dict[tuple[int, int], list[tuple[float, _Values]]] = defaultdict(list)
        for (month, day, hour), years in sorted(hours.items()):
            found = years[max(years)]  # a file of several years counts with its last
            for part, values in enumerate(found):
                days[month, day].append(((hour - 1 + part / len(found)) * _HOUR_S, values))
        return _TypicalYear(zone_h * _HOUR_S, days, at_pa)

    def over(self, start_s: float, end_s: float) -> Iterator[tuple[float, _Air]]:
        """Yield the air of every record of the days that a span touches."""
        day = _local_date(start_s + self._offset_s)
        last = _local_date(end_s + self._offset_s)
        while day <= last:
            key = day.month, day.day
            if key == (2, 29) and key not in self._days:
                key = 2, 28
            midnight_s = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() - self._offset_s
            for offset_s, (dry_c, humidity, at_pa) in self._days.get(key, ()):
                yield midnight_s + offset_s, _air(dry_c, None, humidity, self._at_pa if at_pa is None else at_pa)
            day += timedelta(days=1)


def _local_date(time_s: float) -> date:
    return datetime.fromtimestamp(time_s, UTC).date()


def _record(path: Path, line_number: int, line: str) -> tuple[tuple[int, int, int], int, _Values]:
    """Return (month, day, hour), year and values of a record of EPW."""
    cells = line.split(",")
    try:
        year, month, day, hour = (whole(cell) for cell in cells[:4])
        date(2000, month, day)
        if not 1 <= hour <= 24:
            raise ValueError(f"hour {hour}: must be 1 to 24")  # noqa: TRY301
        values = (
            _believed(cells[6], *_BELIEVED_C),
            _believed(cells[8], *_HUMIDITY),
            _believed(cells[9], *_PRESSURE_PA),
        )
    except IndexError:
        raise Rejected(f"{path}: line {line_number}: must have at least 10 cells, as EPW records have") from None
    except (ValueError, OverflowError) as error:
        raise Rejected(f"{path}: line {line_number}: not a record of EPW: {error}") from None
    return (month, day, hour), year, values


@dataclass(frozen=True, slots=True)
class _CsvColumns:
    """The columns of a CSV file that count."""

    times: str
    dry: str
    wet: str | None
    humidity: str | None
    pressure: str | None

    @staticmethod
    def of(header: Sequence[str], source: str) -> "_CsvColumns":
        times = column_of(header, time_columns(), source)
        dry = column_of(header, _DRY, source)
        wet = column_of(header, (_WET, *_HUMID, _STULL), source)
        return _CsvColumns(
            times,
            dry,
            wet if wet in (_WET, _STULL) else None,
            next((name for name in _HUMID if name in header), None),
            next((name for name in _PRESSURE if name in header), None),
        )

    def record(self, cells: dict[str, str | None], at_pa: float) -> "_Record":
        return _Record(
            _believed(cells.get(self.dry), *_BELIEVED_C),
            None if self.wet is None else _believed(cells.get(self.wet), *_BELIEVED_C),
            None if self.humidity is None else _believed(cells.get(self.humidity), *_HUMIDITY),
            at_pa if self.pressure is None else _pressure(cells.get(self.pressure), _PRESSURE[self.pressure]) or at_pa,
        )


@dataclass(frozen=True, slots=True)
class _Record:
    dry_c: float | None
    wet_c: float | None
    humidity: float | None
    at_pa: float

    def air(self) -> _Air:
        return _air(self.dry_c, self.wet_c, self.humidity, self.at_pa)


def _csv_rows(path: Path, start_s: float, end_s: float, rules: WeatherRules) -> list[tuple[float, _Air]]:
    """Return the rows around a span, or the last ones before it and the first ones after it."""
    source = str(path)
    table = read_csv(path)
    columns = _CsvColumns.of(table.header, source)
    at_pa = pressure_pa(rules.altitude_m or 0.0)
    clock = LocalTimes(columns.times, UTC if "tz_offset_s" in table.header else rules.zone)
    records: list[tuple[float, _Record]] = []
    for line, time_s, cells in timed_rows(table, columns.times, clock, source):
        try:
            shift_s = finite(cells.get("tz_offset_s") or "0")
            records.append((time_s - shift_s, columns.record(cells, at_pa)))
        except ValueError as error:
            raise Rejected.field(source, f"line {line}", ",".join(map(str, cells.values()))[:200], str(error)) from None
    if not records:
        raise Rejected(f"{source}: no rows: must have weather with dry and wet bulb")
    _check_percent(source, columns.humidity, [r.humidity for _, r in records if r.humidity is not None])
    first_s, last_s = min(t for t, _ in records), max(t for t, _ in records)
    from_s, until_s = min(start_s, last_s) - _AROUND_S, max(end_s, first_s) + _AROUND_S
    return [(time_s, record.air()) for time_s, record in records if from_s <= time_s <= until_s]


def _check_percent(source: str, column: str | None, humidities: Sequence[float]) -> None:
    """Refuse a column of which every value is 1 or less: as percent they would make any air dry, and cooling easy."""
    if humidities and max(humidities) <= 1:
        raise Rejected.field(source, str(column), max(humidities), "the highest must be in percent, above 1")


def _pressure(text: str | None, factor: float) -> float | None:
    value = _believed(text, 0.0, math.inf)
    return None if value is None or not _PRESSURE_PA[0] <= value * factor <= _PRESSURE_PA[1] else value * factor
