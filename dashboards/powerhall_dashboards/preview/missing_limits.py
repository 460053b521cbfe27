"""Limits that should be on the first screen and are not: where one is silent, nothing may be called safe.

A limit is expected that the plan in force has, and one that the roll-ups of the last day had. So a hall whose nodes are
all silent, a roll-up that stopped, and weather that ended with the cooling capacity are told by name.
"""

from collections.abc import Collection, Iterator, Sequence

from powerhall.store import Query, Row, Select, Store

__all__ = ["missing_limits"]

_DAY_S = 86_400.0
_SITE = {"load": "facility_power_w", "limit": "budget_w"}
_HALL = {"load": "it_power_w", "limit": "budget_w", "heat": "heat_w", "capacity": "cooling_capacity_w"}


def missing_limits(store: Store, site: str, end_s: float, coming: Sequence[Row], known: Collection[str]) -> list[str]:
    """Return the names of expected limits that are not among the known ones; `coming` is the plan from now on."""
    plan = [row for row in coming if row.time_s <= end_s]
    expected = {*_of_plan(plan, site), *_of_day(store, site, end_s)}
    return sorted(name for name in expected if not any(line == name or line.startswith(f"{name} (") for line in known))


def _of_plan(rows: Sequence[Row], site: str) -> Iterator[str]:
    for row in rows:
        zone, is_limited = row.tags["zone"], row.number("budget_w") is not None
        if zone == site:
            yield from [f"{zone} at the meter"] if is_limited else []
        elif row.number("heat_w") is not None:
            yield from [f"{zone} power"] if is_limited else []
            yield from [f"{zone} cooling"] if row.number("cooling_capacity_w") else []


def _of_day(store: Store, site: str, end_s: float) -> Iterator[str]:
    def last(measurement: str, fields: dict[str, str], *group: str) -> list[Row]:
        select = tuple(Select(field, "last", name) for name, field in fields.items())
        return store.query(Query(measurement, select, {"site": site}, group), end_s - _DAY_S, end_s + 1)

    def both(row: Row, load: str, limit: str) -> bool:
        return row.number(load) is not None and row.number(limit) is not None

    if any(both(row, "load", "limit") for row in last("site_10s", _SITE)):
        yield f"{site} at the meter"
    for row in last("hall_10s", _HALL, "hall"):
        yield from [f"{row.tags['hall']} power"] if both(row, "load", "limit") else []
        yield from [f"{row.tags['hall']} cooling"] if both(row, "heat", "capacity") else []
