"""Prices, carbon intensity and power budgets from CSV, with a rule for the times that the file does not cover."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from itertools import pairwise
from pathlib import Path
from typing import Literal

from powerhall.forecasts.completion import Fill, Row, Steps, complete, constant, sort_rows
from powerhall.forecasts.coverage import Forecast, Span
from powerhall.forecasts.local_time import LocalTimes, time_columns
from powerhall.runtime.decode.csv_table import CsvTable, read_csv
from powerhall.runtime.decode.numbers_in import finite
from powerhall.runtime.errors import Rejected

__all__ = [
    "BUDGET",
    "CARBON",
    "MISSING_TEXTS",
    "PRICES",
    "Outside",
    "SeriesKind",
    "column_of",
    "hold_last",
    "read_forecast",
    "timed_rows",
]

Outside = Literal["worst_case", "hold_last"]
"""What holds where a file has no value: the worst case of its kind, or the value next to it."""
MISSING_TEXTS = frozenset({"", "na", "n/a", "nan", "null", "none", "nd", "-", "--", "?", "missing"})
"""Texts that stand for a missing value, in lower case."""
_MISSING_NUMBERS = frozenset({-9999.0, -99999.0, 99999.0, 999999.0})
_WEEK_S = 7 * 86_400.0


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


@dataclass(frozen=True, slots=True)
class SeriesKind:
    """A kind of file: value columns with their factors into base units, and what is its worst case."""

    what: str
    columns: Mapping[str, float]
    worse: Callable[[float, float], float]
    worst: Callable[[list[float]], float]
    """The value outside the coverage from the file's values; for a budget the lowest, for a price the mean."""
    worst_of_s: float = math.inf
    """How much of the file's end counts for `worst`, in s."""
    negative: bool = False
    """Whether negative values may stand in a file."""

    def fill(self, outside: Outside, known: Steps) -> Fill:
        """Return the rule for the times that a file does not cover, from its known steps."""
        if outside == "hold_last":
            return hold_last
        from_s = known[-1][0] - self.worst_of_s
        return constant(self.worst([value for time_s, value in known if time_s > from_s]))


def hold_last(before: Steps, after: Steps, span: Span) -> list[tuple[float, float]]:
    """Hold the value before a span, or the one after it where there is none before."""
    return [(span[0], before[-1][1] if before else after[0][1])]


PRICES = SeriesKind(
    "price",
    {"usd_per_mwh": 1.0, "price_per_mwh": 1.0, "price": 1.0, "usd_per_kwh": 1e3},
    max,
    _mean,
    _WEEK_S,
    negative=True,
)
CARBON = SeriesKind("carbon intensity", {"g_per_kwh": 1.0, "carbon_g_per_kwh": 1.0}, max, _mean, _WEEK_S)
BUDGET = SeriesKind("power", {"power_w": 1.0, "power_kw": 1e3, "power_mw": 1e6}, min, min)


def column_of(header: Iterable[str], wanted: Iterable[str], source: str) -> str:
    """Return the first of the wanted columns that the header has; none raises Rejected."""
    present = list(header)
    for name in wanted:
        if name in present:
            return name
    raise Rejected.field(source, "header", ",".join(present)[:200], f"must have a column {' or '.join(wanted)}")


def read_forecast(
    path: str | Path, kind: SeriesKind, zone: tzinfo | None = None, outside: Outside = "worst_case"
) -> Forecast:
    """Read a file of values over time; rows may come in any order, repeat, and miss values.

    Naive times are local to `zone`. A value that is no number, or a file without any, raises Rejected.
    """
    source = str(path)
    table = read_csv(path)
    times = column_of(table.header, time_columns(), source)
    values = column_of(table.header, kind.columns, source)
    factor = kind.columns[values]
    rows: list[Row] = []
    for line, time_s, cells in timed_rows(table, times, LocalTimes(times, zone), source):
        value = _value(cells.get(values) or "", kind, source, f"line {line}: {values}")
        rows.append((time_s, None if value is None else value * factor))
    known = [(time_s, value) for time_s, value in sort_rows(rows, kind.worse)[0] if value is not None]
    if not known:
        raise Rejected(f"{source}: no {'values' if rows else 'rows'}: must have at least one time and {kind.what}")
    return complete(source, rows, kind.worse, kind.fill(outside, known))


def _value(text: str, kind: SeriesKind, source: str, field: str) -> float | None:
    if text.strip().lower() in MISSING_TEXTS:
        return None
    try:
        value = finite(text)
    except ValueError as error:
        raise Rejected.field(source, field, text[:80], str(error)) from None
    if value in _MISSING_NUMBERS:
        return None
    if value < 0 and not kind.negative:
        raise Rejected.field(source, field, text[:80], "must not be negative")
    return value


def timed_rows(
    table: CsvTable, column: str, clock: LocalTimes, source: str
) -> list[tuple[int, float, dict[str, str | None]]]:
    """Return (line, time in s, cells) of every row whose hour exists; a time that cannot be read raises Rejected.

    The times of a file that begins with the newest are read from its end, so that a repeated hour is read in order.
    """
    rows = list(table)
    texts = [cells.get(column) or "" for _, cells in rows]
    newest_first = 2 * sum(b < a for a, b in pairwise(texts)) > len(texts)
    found: list[tuple[int, float, dict[str, str | None]]] = []
    for line, cells in reversed(rows) if newest_first else rows:
        try:
            time_s = clock.read(cells.get(column) or "")
        except ValueError as error:
            raise Rejected.field(source, f"line {line}: {column}", cells.get(column), str(error)) from None
        if time_s is not None:
            found.append((line, time_s, cells))
    return found[::-1] if newest_first else found
