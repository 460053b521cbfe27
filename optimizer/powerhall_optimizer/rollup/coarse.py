"""Roll-ups of roll-ups: five-minute points of racks, halls and the site, which long ranges are drawn from."""

from collections.abc import Iterator, Mapping

from powerhall.store import Query, Select, Store
from powerhall.store.line_protocol import Point
from powerhall.store.schema import MEASUREMENTS

__all__ = ["COARSE_S", "coarse_points", "coarse_range"]

COARSE_S = 300
_WORST = {
    "budget_w": "min",
    "headroom_w": "min",
    "temp_max_c": "max",
    "gpus": "max",
    "gpus_throttled": "max",
    "gpus_lost": "max",
    "nodes": "max",
    "nodes_stale": "max",
    "readings_dropped": "max",
    "cooling_load_percent": "max",
    "cooling_headroom_w": "min",
}
"""Fields whose worst moment counts; of the others the mean is kept."""


def coarse_range(start_s: int, end_s: int) -> tuple[int, int]:
    """Return the range of the whole five minutes that are over at `end_s` and hold something after `start_s`."""
    return start_s // COARSE_S * COARSE_S, end_s // COARSE_S * COARSE_S


def coarse_points(store: Store, level: str, where: Mapping[str, str], start_s: int, end_s: int) -> Iterator[Point]:
    """Yield the five-minute points of a level (`site`, `hall` or `rack`) from its ten-second ones."""
    entry = MEASUREMENTS[f"{level}_10s"]
    select = tuple(Select(field.name, _WORST.get(field.name, "mean")) for field in entry.fields)
    query = Query(entry.name, select, dict(where), entry.tags, every_s=float(COARSE_S))
    for row in store.query(query, start_s, end_s):
        fields: dict[str, float | str] = {name: value for name, value in row.values.items() if value is not None}
        yield Point(f"{level}_5m", row.tags, fields, round(row.time_s * 1000))
