"""Coverage of a file's values over time: where they hold, where they are missing, and how old they are."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from powerhall.timeseries import Series

__all__ = ["Coverage", "Forecast", "Span"]

Span = tuple[float, float]
"""Start and end in seconds since the epoch."""


def _text(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%MZ")


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a file covers: from `start_s` to the end of its last step at `end_s`, without `gaps`."""

    source: str
    start_s: float
    end_s: float
    step_s: float
    """The step that most rows keep; an hour where there is one row."""
    gaps: tuple[Span, ...] = ()
    """Spans without a value that are too long to be bridged."""
    rows: int = 0
    unordered: int = 0
    """Rows that stood before an earlier one."""
    duplicates: int = 0
    """Rows of a time that was there before; the worse value counts."""
    missing: int = 0
    """Rows whose value is a code for missing, implausible, or at an hour that the clock leaves out."""

    def uncovered(self, start_s: float, end_s: float) -> tuple[Span, ...]:
        """Return the parts of a span that the file does not cover, in order."""
        holes = ((-math.inf, self.start_s), *self.gaps, (self.end_s, math.inf))
        cut = ((max(a, start_s), min(b, end_s)) for a, b in holes)
        return tuple((a, b) for a, b in cut if a < b)

    def age_s(self, at_s: float) -> float:
        """Return how long the file's last value had ended at a time, in s; 0 while it still holds."""
        return max(0.0, at_s - self.end_s)

    def trouble(self, start_s: float, end_s: float) -> str | None:
        """Return one line on what of a span is not covered, or None."""
        holes = self.uncovered(start_s, end_s)
        if not holes:
            return None
        if self.age_s(start_s) > 0:
            return f"{self.source} ended at {_text(self.end_s)}, {_span_text(self.age_s(start_s))} before the plan"
        first, last = holes[0][0], holes[-1][1]
        if len(holes) == 1 and last >= end_s and first >= self.end_s:
            return f"{self.source} ends at {_text(first)}, {_span_text(end_s - first)} before the plan does"
        if self.start_s >= end_s:
            return f"{self.source} begins at {_text(self.start_s)}, after the plan"
        missing = ", ".join(f"{_text(a)} to {_text(b)}" for a, b in holes[:3])
        more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
        return f"{self.source} has no values for {missing}{more}"


def _span_text(span_s: float) -> str:
    if span_s >= 2 * 86_400:
        return f"{span_s / 86_400:.0f} days"
    return f"{span_s / 3600:.1f} h" if span_s >= 3600 else f"{span_s / 60:.0f} min"


@dataclass(frozen=True, slots=True)
class Forecast:
    """A series that has a value at every time, and what of it the file covers."""

    series: Series
    coverage: Coverage
