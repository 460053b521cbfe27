"""The next two hours as two step lines: what is planned at the meter, below the budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from itertools import pairwise

from powerhall.forecasts.page_times import near
from powerhall.report.colours import COLOURS
from powerhall.store import Row
from powerhall_dashboards.preview import text

__all__ = ["AheadChart", "ahead_chart"]

_WIDTH, _HEIGHT = 300.0, 80.0
_TICKS = 4


@dataclass(frozen=True, slots=True)
class AheadChart:
    """Paths of an SVG of 300 x 80 units, with what a reader who does not see it is told."""

    budget: str
    planned: str
    budget_colour: str
    planned_colour: str
    most: str
    ticks: tuple[str, ...]
    words: str


def ahead_chart(rows: Sequence[Row], start_s: float, end_s: float, zone: tzinfo) -> AheadChart | None:
    """Draw the rows of the site's own zone, in the order of time; None where there are fewer than two."""
    drawn = [row for row in rows if row.number("planned_w") is not None]
    if len(drawn) < 2:
        return None
    most_w = max(row.number(name) or 0.0 for row in drawn for name in ("planned_w", "budget_w")) or 1.0
    x_of, y_of = _scales(start_s, end_s, most_w)
    paths = {name: _steps(drawn, name, x_of, y_of) for name in ("planned_w", "budget_w")}
    ticks = tuple(
        near(start_s + number * (end_s - start_s) / _TICKS, start_s, zone)[:5] for number in range(_TICKS + 1)
    )
    highest = max(row.number("planned_w") or 0.0 for row in drawn)
    words = f"Planned power at the meter, at most {text.value(highest, 'W')}, and its budget over the next two hours"
    budget, planned, most = paths["budget_w"], paths["planned_w"], text.value(most_w, "W")
    return AheadChart(budget, planned, COLOURS["budget"], COLOURS["planned"], most, ticks, words)


def _scales(start_s: float, end_s: float, most_w: float) -> tuple[Callable[[float], float], Callable[[float], float]]:
    def x_of(time_s: float) -> float:
        return _WIDTH * min(1.0, max(0.0, (time_s - start_s) / (end_s - start_s)))

    def y_of(power_w: float) -> float:
        return 2.0 + (_HEIGHT - 2.0) * (1.0 - power_w / most_w)

    return x_of, y_of


def _steps(rows: Sequence[Row], name: str, x_of: Callable[[float], float], y_of: Callable[[float], float]) -> str:
    """Return a path that holds each value until the next row; "" for a column without values."""
    found = [(row.time_s, value) for row in rows if (value := row.number(name)) is not None]
    if not found:
        return ""
    parts = [f"M{x_of(found[0][0]):.1f} {y_of(found[0][1]):.1f}"]
    changes = ((at_s, value) for (_, before), (at_s, value) in pairwise(found) if value != before)
    return "".join([*parts, *(f"H{x_of(at_s):.1f}V{y_of(value):.1f}" for at_s, value in changes), f"H{_WIDTH:.0f}"])
