"""Asks a store whether it keeps points of the demo's day, before an hour of work is lost to its retention."""

import time
from typing import Final

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.store import Query, Select, Store
from powerhall.store.line_protocol import Point, encode

__all__ = ["check_kept_day"]

_VISIBLE_S: Final = 5.0
"""InfluxDB 3 answers with points a second after they were taken."""


def check_kept_day(store: Store, url: str, site: str, start_s: float) -> None:
    """Write a point of the day's start in each class and read it back; ConfigError where the store does not keep it.

    InfluxDB 1 and 2 refuse points that are older than the retention; version 3 takes them and drops them.
    """
    at_ms = round(start_s * 1000)
    for point in (  # one of each class
        Point("collector", {"site": site, "node": "demo", "collector": "kept-day"}, {"success": 1.0}, at_ms),
        Point("facility", {"site": site, "device": "demo", "point": "kept-day"}, {"value": 1.0, "quality": 1.0}, at_ms),
        Point("event", {"site": site, "node": "demo", "kind": "demo"}, {"detail": "the demo's day begins"}, at_ms),
    ):
        try:
            store.write(encode(point))
        except ConfigError:
            raise
        except Rejected as error:
            raise _refusal(url, start_s, str(error)) from None
        if not _found(store, point, start_s):
            raise _refusal(url, start_s, f"{point.measurement}: not there after it was written")


def _found(store: Store, point: Point, start_s: float) -> bool:
    query = Query(point.measurement, (Select(next(iter(point.fields))),), point.tags)
    end_s = time.monotonic() + _VISIBLE_S
    while not store.query(query, start_s, start_s + 1.0):
        if time.monotonic() > end_s:
            return False
        time.sleep(0.2)
    return True


def _refusal(url: str, start_s: float, why: str) -> ConfigError:
    day = time.strftime("%Y-%m-%d", time.gmtime(start_s))
    return ConfigError(
        f"{url.partition('?')[0]}: does not keep points of the demo's day, {day}: {why}; give a bucket of its own with "
        "'powerhall-dashboards init-store --retention-days 3650' (retention=one), or leave out --store"
    )
