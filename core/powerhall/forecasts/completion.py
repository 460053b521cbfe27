"""Rows of a file into a step function: sorted, without duplicates, short gaps bridged, long ones filled by a rule."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from powerhall.forecasts.coverage import Coverage, Forecast, Span
from powerhall.timeseries import Series

__all__ = ["BRIDGED_S", "Fill", "Row", "complete", "constant", "sort_rows"]

BRIDGED_S = 3 * 3600.0
"""Longest gap that is bridged by the worse of the values at its sides."""
_FAR_S = 366 * 86_400.0
"""How far before the first value and after the last one steps are written; beyond them a series stays constant."""
_LONE_STEP_S = 3600.0
"""How long the only value of a file holds."""
_REGULAR_SHARE = 0.8
"""A file is regular, so that a longer step is a gap, where this share of its steps are alike."""

Row = tuple[float, float | None]
"""Time in seconds since the epoch, and the value or None where it is missing."""
Steps = Sequence[tuple[float, float]]
Fill = Callable[[Steps, Steps, Span], Iterable[tuple[float, float]]]
"""Returns steps for a span from the known steps before it and after it; the first begins at the span's start."""


@dataclass(frozen=True, slots=True)
class _Counts:
    rows: int
    unordered: int
    duplicates: int
    missing: int


def sort_rows(
    rows: Sequence[Row], worse: Callable[[float, float], float] = lambda first, _second: first
) -> tuple[list[Row], _Counts]:
    """Return the rows in order of time, of every time the worse one; a missing value yields to a known one."""
    unordered = sum(b < a for (a, _), (b, _) in pairwise(rows))
    found: dict[float, float | None] = {}
    for time_s, value in rows:
        before = found.get(time_s)
        found[time_s] = value if before is None else before if value is None else worse(before, value)
    missing = sum(value is None for value in found.values())
    return sorted(found.items()), _Counts(len(rows), unordered, len(rows) - len(found), missing)


def complete(source: str, rows: Sequence[Row], worse: Callable[[float, float], float], fill: Fill) -> Forecast:
    """Return the forecast of at least one known row.

    `worse` picks between the values of one time, and between those beside a short gap.
    """
    ordered, counts = sort_rows(rows, worse)
    step_s, regular = _step(ordered)
    held = _held(ordered, step_s, regular=regular)
    known = [(start_s, value) for start_s, _, value in held]
    first_s, last_s = held[0][0], held[-1][1]
    steps = list(fill([], known, (first_s - _FAR_S, first_s)))
    gaps: list[Span] = []
    for number, (start_s, end_s, value) in enumerate(held):
        steps.append((start_s, value))
        next_s = held[number + 1][0] if number + 1 < len(held) else end_s
        if end_s < next_s <= end_s + BRIDGED_S:
            steps.append((end_s, worse(value, held[number + 1][2])))
        elif end_s < next_s:
            gaps.append((end_s, next_s))
            steps.extend(fill(known[: number + 1], known[number + 1 :], (end_s, next_s)))
    steps.extend(fill(known, [], (last_s, last_s + _FAR_S)))
    series = Series(tuple(t for t, _ in steps), tuple(v for _, v in steps))
    coverage = Coverage(
        source, first_s, last_s, step_s, tuple(gaps), counts.rows, counts.unordered, counts.duplicates, counts.missing
    )
    return Forecast(series, coverage)


def _step(ordered: Sequence[Row]) -> tuple[float, bool]:
    steps = Counter(b - a for (a, _), (b, _) in pairwise(ordered))
    if not steps:
        return _LONE_STEP_S, False
    most = max(steps.values())
    step_s = min(step for step, count in steps.items() if count == most)
    return step_s, most >= _REGULAR_SHARE * steps.total()


def _held(ordered: Sequence[Row], step_s: float, *, regular: bool) -> list[tuple[float, float, float]]:
    """Return (start, end, value) of every known row: until the next row, or one step where the file is regular."""
    held: list[tuple[float, float, float]] = []
    for number, (time_s, value) in enumerate(ordered):
        if value is None:
            continue
        next_s = ordered[number + 1][0] if number + 1 < len(ordered) else math.inf
        end_s = min(next_s, time_s + step_s) if regular or next_s == math.inf else next_s
        held.append((time_s, end_s, value))
    return held


def constant(value: float) -> Fill:
    """Return the rule that one value holds wherever the file has none."""

    def fill(_before: Steps, _after: Steps, span: Span) -> list[tuple[float, float]]:
        return [(span[0], value)]

    return fill
