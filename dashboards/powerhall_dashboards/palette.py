"""Styles, units and words, the same on every dashboard and in the preview; `powerhall.report.colours` has the colours.

Marks of events have hues of their own.
"""

from powerhall.report.colours import COLOURS, ROLES, SERIES
from powerhall_dashboards.model import Step

__all__ = [
    "COLOURS",
    "DASHED",
    "FROM_ZERO",
    "GRAFANA_UNITS",
    "OF_EVERY_GROUP",
    "ROLES",
    "SERIES",
    "STEPPED",
    "WORDS",
    "step_role",
]

DASHED = frozenset({"budget", "planned", "bound", "capacity", "limit"})
"""Columns drawn as a dashed line: limits and forecasts, not measurements."""

STEPPED = frozenset({"budget", "planned", "limit", "capacity", "headroom", "price", "delivered"})
"""Columns that hold their value until the next point: drawn as steps, where a slope would show what never was."""

WORDS: dict[str, dict[float, str]] = {
    "verified": {1.0: "verified", 0.0: "NOT VERIFIED"},
    "active": {1.0: "stands", 0.0: "over"},
    "leased": {1.0: "leased", 0.0: "safe cap"},
    "up": {1.0: "up", 0.0: "DOWN"},
    "success": {1.0: "ok", 0.0: "failed"},
    "refused": {1.0: "REFUSED", 0.0: "granted"},
    "suspect": {1.0: "SUSPECT", 0.0: "believed"},
    "quality": {1.0: "good", 0.0: "doubtful"},
    "severity": {0.0: "note", 1.0: "warning", 2.0: "CRITICAL"},
    "pending": {1.0: "yes", 0.0: "no"},
}
"""States in words, by column."""

OF_EVERY_GROUP = frozenset({"budget"})
"""Columns that keep their colour where there is one series per hall or zone."""

FROM_ZERO = frozenset({"W", "B", "B/s", "s"})
"""Units whose axis shows zero."""

GRAFANA_UNITS = {
    "W": "watt",
    "J": "joule",
    "Wh": "watth",
    "degC": "celsius",
    "K": "kelvin",
    "%": "percent",
    "s": "s",
    "B": "bytes",
    "B/s": "Bps",
    "h": "h",
    "kg": "masskg",
    "l": "litre",
    "MHz": "suffix: MHz",
    "currency": "currencyUSD",
    "time": "dateTimeAsIso",
    "": "short",
}
"""Unit of the schema to Grafana's unit id."""


def step_role(steps: tuple[Step, ...], value: float) -> str:
    """Return the role of a value under these steps, which the page turns into a colour of its mode."""
    role = "neutral"
    for step in steps:
        if step.value is None or value >= step.value:
            role = step.role
    return role
