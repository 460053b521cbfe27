"""Learn from telemetry: draws and speeds of job classes, margins, and measured cooling."""

import math
from collections.abc import Mapping

import msgspec

from powerhall.physics.weather import Weather
from powerhall.plan.plan import Snapshot
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import Rejected
from powerhall.site.topology import Hall, Site
from powerhall.store import Query, Select, Store, what_answers
from powerhall_optimizer.inputs.durations import expected_jobs
from powerhall_optimizer.inputs.forecast import History, learned_classes, measured_draws
from powerhall_optimizer.inputs.margins import CoolingReading, margins_w, scaled_plants
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.seated_jobs import seated

__all__ = ["learn_from_telemetry"]

_READ_S = 600.0
_HOUR_S = 3600.0


def learn_from_telemetry(
    store: Store, snapshot: Snapshot, now_s: float, settings: RoundSettings, *, keep: bool
) -> Snapshot:
    """Return the snapshot with learned values; `keep` writes the new history to the store (kind "draws")."""
    site = snapshot.site
    history = _history(store, site.name)
    draws = measured_draws(site, snapshot.jobs, _node_w(store, site.name, now_s), now_s)
    history = history.updated(draws, snapshot.jobs, now_s, settings.learn_days, speed=settings.learn_speed)
    if keep:
        store.put_document("draws", site.name, now_s, msgspec.json.encode(history))
    classes, learned = learned_classes(site, history)
    halls = _measured_halls(store, site, now_s, settings.learn_days)
    site = msgspec.structs.replace(site, job_classes=classes, halls=halls)
    share = 1.0 if settings.learn_speed else settings.length_share
    jobs, _ = seated(expected_jobs(history, snapshot.jobs, share), site)  # another may now be the longest on a GPU
    snapshot = msgspec.structs.replace(snapshot, site=site, jobs=jobs)
    return msgspec.structs.replace(snapshot, margin_w=margins_w(snapshot, learned, settings.risk))


def _history(store: Store, site: str) -> History:
    body = store.latest_document("draws", site)
    if body is None:
        return History()
    try:
        return decode_json(body, History, "store: draws")
    except Rejected:
        return History()  # of an older version; learning starts again


def _node_w(store: Store, site: str, now_s: float) -> dict[str, float]:
    """Return the mean power of every node over the last minutes; NaN is no data, nor is a hall's silent store."""
    query = Query("node", (Select("power_w", "mean"),), {"site": site}, ("node",))
    ask = what_answers(store, lambda _hall, _error: None)
    readings = {row.tags["node"]: row.number("power_w") for row in ask(query, now_s - _READ_S, now_s + 1)}
    return {node: value for node, value in readings.items() if value is not None and math.isfinite(value)}


def _measured_halls(store: Store, site: Site, now_s: float, days: float) -> tuple[Hall, ...]:
    start_s = now_s - days * 86_400
    weather = _hourly_weather(store, site.name, start_s, now_s)
    if not weather:
        return site.halls
    fields = (Select("it_power_w", "mean"), Select("cooling_power_w", "mean"))
    query = Query("hall_10s", fields, {"site": site.name}, ("hall",), every_s=_HOUR_S)
    readings: dict[str, list[CoolingReading]] = {}
    for row in store.query(query, start_s, now_s):
        it_w, cooling_w = row.number("it_power_w"), row.number("cooling_power_w")
        moment = weather.get(row.time_s)
        if it_w is not None and cooling_w is not None and moment is not None:
            readings.setdefault(row.tags["hall"], []).append(CoolingReading(it_w, cooling_w, moment))
    return tuple(scaled_plants(hall, _liquid_share(site, hall), readings.get(hall.zone, ())) for hall in site.halls)


def _hourly_weather(store: Store, site: str, start_s: float, end_s: float) -> Mapping[float, Weather]:
    fields = (Select("dry_bulb_c", "mean"), Select("wet_bulb_c", "mean"))
    query = Query("weather", fields, {"site": site}, ("site",), every_s=_HOUR_S)
    found: dict[float, Weather] = {}
    for row in store.query(query, start_s, end_s):
        dry, wet = row.number("dry_bulb_c"), row.number("wet_bulb_c")
        if dry is not None and wet is not None:
            found[row.time_s] = Weather(dry, wet)
    return found


def _liquid_share(site: Site, hall: Hall) -> float:
    """Return the part of the hall's IT power that goes to liquid, by the rated power of its nodes."""
    rated = [(site.node_types[r.node_type], len(r.nodes)) for r in hall.racks()]
    total = sum(kind.max_power_w * count for kind, count in rated)
    return sum(kind.max_power_w * count * kind.liquid_fraction for kind, count in rated) / total
