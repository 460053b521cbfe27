"""Outdoor air: one moment, and series over time from EnergyPlus weather files (EPW, a typical year) or hourly CSV."""

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from powerhall.runtime.errors import Rejected
from powerhall.timeseries import Series, open_text, parse_time

__all__ = ["Weather", "read_weather", "wet_bulb_c"]


@dataclass(frozen=True, slots=True)
class Weather:
    """Outdoor air: dry-bulb and wet-bulb temperature in degC."""

    dry_bulb_c: float
    wet_bulb_c: float


def wet_bulb_c(dry_bulb_c: float, humidity_percent: float) -> float:
    """Return the wet-bulb temperature in degC at sea level: Stull (2011), J. Appl. Meteorol. Climatol. 50, eq. 1."""
    t, rh = dry_bulb_c, humidity_percent
    return (
        t * math.atan(0.151977 * math.sqrt(rh + 8.313659))
        + math.atan(t + rh)
        - math.atan(rh - 1.676331)
        + 0.00391838 * rh * math.sqrt(rh) * math.atan(0.023101 * rh)
        - 4.686035
    )


def _read_epw(path: Path, year: int) -> tuple[Series, Series]:
    lines = open_text(path).read().splitlines()
    try:
        offset_s = float(lines[0].split(",")[8]) * 3600
        times: list[float] = []
        dry: list[float] = []
        wet: list[float] = []
        for line in lines[8:]:
            cells = line.split(",")
            month, day, hour = int(cells[1]), int(cells[2]), int(cells[3])
            times.append(datetime(year, month, day, tzinfo=UTC).timestamp() + (hour - 1) * 3600 - offset_s)
            dry.append(float(cells[6]))
            wet.append(min(float(cells[6]), wet_bulb_c(float(cells[6]), float(cells[8]))))
    except (ValueError, IndexError) as error:
        raise Rejected(f"{path}: not an EPW weather file: {error}") from None
    if not times:
        raise Rejected(f"{path}: no rows: must have hourly weather")
    return Series(tuple(times), tuple(dry)), Series(tuple(times), tuple(wet))


def _read_csv(path: Path) -> tuple[Series, Series]:
    rows = csv.DictReader(open_text(path))
    header = rows.fieldnames or ()
    dry_column = "dry_bulb_c" if "dry_bulb_c" in header else "temperature_2m"
    wet_column = "wet_bulb_c" if "wet_bulb_c" in header else "wetbulb_C_stull"
    for name in (dry_column, wet_column, "time"):
        if name not in header:
            raise Rejected.field(str(path), "header", ",".join(header)[:80], f"must have the column {name}")
    times: list[float] = []
    dry: list[float] = []
    wet: list[float] = []
    for number, row in enumerate(rows, 2):
        try:
            time_s = parse_time(row["time"]) - float(row.get("tz_offset_s") or 0.0)
            values = float(row[dry_column]), float(row[wet_column])
        except (TypeError, ValueError) as error:
            raise Rejected.field(str(path), f"line {number}", ",".join(map(str, row.values())), str(error)) from None
        if not all(map(math.isfinite, values)):
            raise Rejected.field(str(path), f"line {number}", ",".join(map(str, row.values())), "must be finite")
        if times and time_s <= times[-1]:
            continue
        times.append(time_s)
        dry.append(values[0])
        wet.append(values[1])
    if not times:
        raise Rejected(f"{path}: no rows: must have hourly weather")
    return Series(tuple(times), tuple(dry)), Series(tuple(times), tuple(wet))


def read_weather(path: str | Path, start_s: float) -> tuple[Series, Series]:
    """Return dry bulb and wet bulb in degC as series over time.

    An EPW file is a typical year: it is laid over the year of `start_s`, in local standard time as the file says.
    CSV needs time, dry_bulb_c, wet_bulb_c (or Open-Meteo's temperature_2m and wetbulb_C_stull, with tz_offset_s).
    """
    path = Path(path)
    if ".epw" in path.name.lower():
        return _read_epw(path, datetime.fromtimestamp(start_s, UTC).year)
    return _read_csv(path)
