"""Colours that mean the same in Grafana, previews, live pages and reports.

Red is a limit, and what is beyond it; violet what is planned or proven; blue what is measured; amber near a limit;
green within it. Each hall keeps one colour.
"""

from collections.abc import Iterable
from typing import Final

__all__ = ["COLOURS", "ROLES", "SERIES", "hall_colours"]

COLOURS: Final = {
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
    "held_down": "#E8A33D",
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
    "measured": "#3274D9",
    "estimated": "#2CB5C0",
    "assumed": "#E8A33D",
    "waiting": "#B877D9",
}
"""Name of a column (or its last word) to colour."""

SERIES: Final = (
    "#3274D9", "#E0752D", "#56A64B", "#8F5BD6", "#2CB5C0", "#F2A33A", "#B877D9", "#8E8E8E", "#705DA0", "#0B8A94",
)  # fmt: skip
"""For series without a colour of their own, such as halls."""

ROLES: Final = {"good": "#56A64B", "warning": "#F2A33A", "critical": "#D64550", "neutral": "#3274D9"}


def hall_colours(halls: Iterable[str]) -> dict[str, str]:
    """Give each hall of a site the colour that it keeps on every chart of every page; all halls must be given."""
    return {hall: SERIES[number % len(SERIES)] for number, hall in enumerate(sorted(halls))}
