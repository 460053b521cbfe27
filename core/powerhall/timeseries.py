"""Step functions of time: budgets, prices and weather, read from CSV and sampled on a plan's slots."""

import csv
import gzip
import io
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from powerhall.runtime.errors import Rejected

__all__ = ["Series", "open_text", "parse_time", "read_series"]

_TIME_COLUMNS = ("time_s", "time", "timestamp", "datetime", "datetime_local")


class Series(msgspec.Struct, frozen=True):
    """A step function: `values[i]` holds from `times_s[i]` (seconds since the epoch) until the next time.

    Times rise strictly; before the first time the first value holds, after the last the last.
    """

    times_s: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, time_s: float) -> float:
        """Return the value in force at `time_s`."""
        return self.values[max(0, bisect_right(self.times_s, time_s) - 1)]

    def slots(self, start_s: int, slot_s: int, count: int, pick: str = "min") -> tuple[float, ...]:
        """Sample `count` slots; within a slot the "min", "max" or time-weighted "mean" of the steps is taken."""
        return tuple(self._over(start_s + i * slot_s, start_s + (i + 1) * slot_s, pick) for i in range(count))

    def _over(self, start_s: float, end_s: float, pick: str) -> float:
        first = max(0, bisect_right(self.times_s, start_s) - 1)
        edges = [start_s]
        values = [self.values[first]]
        for i in range(first + 1, len(self.times_s)):
            if self.times_s[i] >= end_s:
                break
            if self.times_s[i] > start_s:
                edges.append(self.times_s[i])
                values.append(self.values[i])
        if pick == "min":
            return min(values)
        if pick == "max":
            return max(values)
        edges.append(end_s)
        return sum(v * (b - a) for v, a, b in zip(values, edges, edges[1:], strict=False)) / (end_s - start_s)


def parse_time(text: str) -> float:
    """Read seconds since the epoch from a number or an ISO 8601 time; a time without offset is taken as UTC."""
    try:
        number = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ValueError("must be seconds since the epoch or an ISO 8601 time") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(number):
        raise ValueError("must be finite")
    return number


def open_text(path: str | Path) -> io.StringIO:
    """Read a text file, gzip or plain, whole; one that cannot be read raises Rejected."""
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return io.StringIO(data.decode("utf-8-sig"), newline="")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Rejected(f"{path}: cannot read: {reason}") from None


def _column(header: Iterable[str], wanted: Iterable[str], path: str | Path) -> str:
    present = list(header)
    for name in wanted:
        if name in present:
            return name
    raise Rejected.field(str(path), "header", ",".join(present), f"must have a column {' or '.join(wanted)}")


def read_series(path: str | Path, columns: Mapping[str, float]) -> Series:
    """Read a series from CSV; `columns` maps each accepted value column to its factor into base units.

    `read_series("budget.csv", {"power_w": 1, "power_mw": 1e6})`. Rows may come in any order; of rows with
    the same time the first counts (real price files repeat hours). A NaN or an empty file raises Rejected.
    """
    rows = csv.DictReader(open_text(path))
    header = rows.fieldnames or ()
    time_column = _column(header, _TIME_COLUMNS, path)
    value_column = _column(header, columns, path)
    steps: dict[float, float] = {}
    for number, row in enumerate(rows, 2):
        try:
            time_s = parse_time(row[time_column] or "")
            value = float(row[value_column] or "")
        except ValueError:
            raise Rejected.field(
                str(path), f"line {number}", f"{row[time_column]},{row[value_column]}", "must be a time and a number"
            ) from None
        if not math.isfinite(value):
            raise Rejected.field(str(path), f"line {number}: {value_column}", value, "must be finite")
        steps.setdefault(time_s, value * columns[value_column])
    if not steps:
        raise Rejected(f"{path}: no rows: must have at least one time and value")
    times = sorted(steps)
    return Series(tuple(times), tuple(steps[time_s] for time_s in times))
