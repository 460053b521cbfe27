"""Queries on any store that the optimizer and the dashboards share."""

from collections.abc import Mapping

from powerhall.store.base import Store
from powerhall.store.query import Filter, Query, Row, Select, TagValue
from powerhall.store.schema import MEASUREMENTS

__all__ = ["job_energy_j", "latest", "latest_per_zone", "plan_history", "series_per_zone"]

ROLLUPS = {"site": "site_10s", "hall": "hall_10s", "rack": "rack_10s"}


def latest(
    store: Store,
    measurement: str,
    fields: tuple[str, ...],
    now_s: float,
    *,
    max_age_s: float,
    where: Mapping[str, TagValue] | None = None,
) -> list[Row]:
    """Return the newest point of each series that is at most `max_age_s` old; its time is that of the reading."""
    query = Query(
        measurement,
        tuple(Select(name) for name in fields),
        where or {},
        MEASUREMENTS[measurement].tags,
        order="desc",
        limit=1,
    )
    return store.query(query, now_s - max_age_s, now_s + 0.001)


def latest_per_zone(store: Store, level: str, fields: tuple[str, ...], now_s: float, *, max_age_s: float) -> list[Row]:
    """Return the newest roll-up of each zone of a level (`site`, `hall` or `rack`)."""
    return latest(store, ROLLUPS[level], fields, now_s, max_age_s=max_age_s)


def series_per_zone(
    store: Store, level: str, field: str, start_s: float, end_s: float, *, every_s: float = 10.0
) -> list[Row]:
    """Return a roll-up's field as means over buckets of `every_s`, per zone of a level."""
    measurement = ROLLUPS[level]
    query = Query(measurement, (Select(field, "mean"),), group_by=MEASUREMENTS[measurement].tags, every_s=every_s)
    return store.query(query, start_s, end_s)


def job_energy_j(store: Store, job: str, start_s: float, end_s: float) -> float:
    """Return the GPU energy of a job's intervals that began in the range."""
    query = Query("job_interval", (Select("energy_j", "sum"),), filters=(Filter("job", "=", job),))
    rows = store.query(query, start_s, end_s)
    return rows[0].number("energy_j") or 0.0 if rows else 0.0


def plan_history(store: Store, site: str, start_s: float, end_s: float) -> list[Row]:
    """Return the published plans of a site, oldest first."""
    fields = tuple(Select(entry.name) for entry in MEASUREMENTS["plan"].fields)
    return store.query(Query("plan", fields, {"site": site}, ("site",)), start_s, end_s)
