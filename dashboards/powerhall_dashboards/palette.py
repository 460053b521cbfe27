"""Colours and units, the same on every dashboard: budget is always this red, planned power always this violet."""

from powerhall_dashboards.model import Step

__all__ = ["COLOURS", "DASHED", "FROM_ZERO", "GRAFANA_UNITS", "OF_EVERY_GROUP", "ROLES", "SERIES", "step_colour"]

COLOURS = {
    "budget": "#D64550",
    "planned": "#8F5BD6",
    "headroom": "#56A64B",
    "it": "#3274D9",
    "cooling": "#2CB5C0",
    "losses": "#8E8E8E",
    "facility": "#1F4E9E",
    "heat": "#E0752D",
    "capacity": "#0B8A94",
    "busy": "#56A64B",
    "throttled": "#F2A33A",
    "lost": "#A61C2D",
    "stale": "#B877D9",
    "wet_bulb": "#4AA3DF",
    "dry_bulb": "#E8A33D",
    "value": "#3274D9",
    "bound": "#8F5BD6",
    "limit": "#D64550",
    "power": "#3274D9",
    "running": "#56A64B",
    "started": "#3274D9",
    "waiting": "#F2A33A",
}
"""Column name (or its last word) to colour."""

DASHED = frozenset({"budget", "planned", "bound", "capacity", "limit"})
"""Columns drawn as a dashed line: limits and forecasts, not measurements."""

OF_EVERY_GROUP = frozenset({"budget"})
"""Columns that keep their colour where there is one series per hall or zone."""

FROM_ZERO = frozenset({"W", "B", "s"})
"""Units whose axis shows zero."""

SERIES = ("#3274D9", "#E0752D", "#56A64B", "#8F5BD6", "#2CB5C0", "#F2A33A", "#B877D9", "#8E8E8E", "#705DA0", "#0B8A94")
"""For series without a colour of their own, such as halls."""

ROLES = {"good": "#56A64B", "warning": "#F2A33A", "critical": "#D64550", "neutral": "#3274D9"}

GRAFANA_UNITS = {
    "W": "watt",
    "J": "joule",
    "degC": "celsius",
    "K": "kelvin",
    "%": "percent",
    "s": "s",
    "B": "bytes",
    "MHz": "suffix: MHz",
    "currency": "currencyUSD",
    "time": "dateTimeAsIso",
    "": "short",
}
"""Unit of the schema to Grafana's unit id."""


def step_colour(steps: tuple[Step, ...], value: float) -> str:
    """Return the colour of a value under these steps."""
    colour = ROLES["neutral"]
    for step in steps:
        if step.value is None or value >= step.value:
            colour = ROLES[step.role]
    return colour
