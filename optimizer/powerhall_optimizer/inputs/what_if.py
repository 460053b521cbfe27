"""What-if: "hall3.power=12MW,grid=-20%,hall1.cooling=-10%,bess.size=+50%,job42.weight=40" applied to a snapshot.

A value is absolute ("12MW"), a share ("-20%") or a difference ("+1.2MW"). An absolute one holds at all times, in place
of a budget over time or an event. `grid` is the site's own budget. Where several sites are planned together, zones have
their site in front: "phx:grid=-20%,fra:hall1.power=12MW". Of a job weight, deadline, earliest start and halls
(separated by spaces) can be changed.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.storage import Storage
from powerhall.site.topology import Feed, Hall, Rack, RackRow, Site
from powerhall.timeseries import Series, parse_time
from powerhall.units import parse_power

__all__ = ["multi_site_what_if", "what_if"]

_ITEM = re.compile(r"\s*(?P<target>[^=,]+?)\s*=\s*(?P<value>[^=,]+?)\s*")
replace = msgspec.structs.replace
Change = Callable[[float], float]


def _refuse(item: str, value: object, allowed: str) -> Rejected:
    return Rejected.field("--what-if", item, value, allowed)


def _change(item: str, text: str) -> tuple[Change, bool]:
    """Return how a power changes, and whether it needs one to change."""
    try:
        if text.endswith("%"):
            share = float(text[:-1])
            if not -100 <= share <= 1000:
                raise _refuse(item, text, "must be from -100% to +1000%")
            return lambda old: old * (1 + share / 100), True
        if text[0] in "+-":
            step = parse_power(text[1:]) * (-1 if text[0] == "-" else 1)
            return lambda old: max(0.0, old + step), True
        fixed = parse_power(text)
        return lambda _old: fixed, False
    except ValueError as error:
        raise _refuse(item, text, f"{error}; or a share such as '-20%', or a difference such as '+1.2 MW'") from None


def _with_limit(site: Site, zone: str, limit_w: float) -> Site:
    """Return the site with another constant limit of one zone."""

    def rack(entry: Rack) -> Rack:
        return replace(entry, power_limit_w=limit_w) if entry.zone == zone else entry

    def row(entry: RackRow) -> RackRow:
        changed = replace(entry, racks=tuple(map(rack, entry.racks)))
        return replace(changed, power_limit_w=limit_w) if entry.zone == zone else changed

    def hall(entry: Hall) -> Hall:
        changed = replace(entry, rows=tuple(map(row, entry.rows)))
        return replace(changed, power_limit_w=limit_w) if entry.zone == zone else changed

    def feed(entry: Feed) -> Feed:
        return replace(entry, power_limit_w=limit_w) if entry.zone == zone else entry

    changed = replace(site, halls=tuple(map(hall, site.halls)), feeds=tuple(map(feed, site.feeds)))
    return replace(changed, power_limit_w=limit_w) if zone == site.name else changed


def _power(site: Site, zone: str, item: str, text: str) -> Site:
    limits = SiteIndex.of(site).limits_w
    if zone not in limits:
        raise _refuse(item, zone, "must be a zone of the site, such as 'hall1' or 'hall1/row1', or 'grid'")
    change, relative = _change(item, text)
    limit, series = limits[zone], site.budgets.get(zone)
    if relative and limit is None and series is None:
        raise _refuse(item, text, f"{zone} has no limit to change; give a power such as '12MW'")
    if series is not None:
        series = Series(series.times_s, tuple(map(change, series.values)))
        site = replace(site, budgets={**site.budgets, zone: series})
    if limit is not None or series is None:
        site = _with_limit(site, zone, change(limit or 0.0))
    return site


def _cooling(site: Site, zone: str, item: str, text: str) -> Site:
    if zone not in {hall.zone for hall in site.halls if hall.plants}:
        raise _refuse(item, zone, "must be a hall with cooling plants")
    change, relative = _change(item, text)
    if not relative or not text.endswith("%"):
        raise _refuse(item, text, "must be a share of the plants' capacity, such as '-20%'")

    def hall(entry: Hall) -> Hall:
        plants = tuple(replace(plant, capacity_w=change(plant.capacity_w)) for plant in entry.plants)
        return replace(entry, plants=plants) if entry.zone == zone else entry

    return replace(site, halls=tuple(map(hall, site.halls)))


def _size(snapshot: Snapshot, name: str, item: str, text: str) -> Snapshot:
    """Return the snapshot with one storage unit larger or smaller: its powers and its contents in proportion."""
    if name not in {storage.name for storage in snapshot.site.storages}:
        raise _refuse(item, name, "must be a store of the site")
    change, relative = _change(item, text)
    factor = change(1.0)
    if not relative or not text.endswith("%") or factor <= 0:
        raise _refuse(item, text, "must be a share of the store's size above -100%, such as '+50%'")

    def sized(entry: Storage) -> Storage:
        fields = ("charge_w", "discharge_w", "capacity_j", "start_j", "end_j", "min_j", "heat_capacity_j_per_k")
        return replace(entry, **{field: getattr(entry, field) * factor for field in fields})

    storages = tuple(sized(entry) if entry.name == name else entry for entry in snapshot.site.storages)
    stored = {key: held * factor if key == name else held for key, held in snapshot.stored_j.items()}
    return replace(snapshot, site=replace(snapshot.site, storages=storages), stored_j=stored)


def _job(snapshot: Snapshot, job_id: str, what: str, item: str, text: str) -> Snapshot:
    """Return the snapshot with one field of a job changed."""
    if job_id not in {job.job_id for job in snapshot.jobs}:
        raise _refuse(item, job_id, "must be a job of the queue")
    fields = _JOB_FIELDS[what](snapshot, item, text)
    jobs = tuple(replace(job, **fields) if job.job_id == job_id else job for job in snapshot.jobs)
    return replace(snapshot, jobs=jobs)


def _weight(_snapshot: Snapshot, item: str, text: str) -> dict[str, float]:
    try:
        weight = float(text)
    except ValueError:
        raise _refuse(item, text, "must be a number") from None
    if not 0 < weight <= 1e6:
        raise _refuse(item, text, "must be above 0 and at most 1000000")
    return {"weight": weight}


def _time_s(item: str, text: str) -> float:
    try:
        return parse_time(text)
    except ValueError as error:
        raise _refuse(item, text, str(error)) from None


def _halls(snapshot: Snapshot, item: str, text: str) -> dict[str, tuple[str, ...]]:
    halls = tuple(text.split())
    known = [hall.zone for hall in snapshot.site.halls]
    if not set(halls) <= set(known):
        raise _refuse(item, text, f"must be halls of {', '.join(known)}, separated by spaces")
    return {"halls": halls}


_JOB_FIELDS: dict[str, Callable[[Snapshot, str, str], Mapping[str, object]]] = {
    "weight": _weight,
    "deadline": lambda _snapshot, item, text: {"deadline_s": _time_s(item, text)},
    "earliest": lambda _snapshot, item, text: {"earliest_s": _time_s(item, text)},
    "halls": _halls,
}


def what_if(snapshot: Snapshot, text: str) -> Snapshot:
    """Return the snapshot with every change of the list applied in order; what does not fit is refused."""
    for item in text.split(","):
        found = _ITEM.fullmatch(item)
        if found is None:
            raise _refuse("item", item, "must be TARGET=VALUE, such as 'hall3.power=12MW' or 'grid=-20%'")
        target, value = found["target"], found["value"]
        name, _, what = target.rpartition(".")
        if target == "grid":
            snapshot = replace(snapshot, site=_power(snapshot.site, snapshot.site.name, item, value))
        elif what == "power":
            snapshot = replace(snapshot, site=_power(snapshot.site, name, item, value))
        elif what == "cooling":
            snapshot = replace(snapshot, site=_cooling(snapshot.site, name, item, value))
        elif what == "size":
            snapshot = _size(snapshot, name, item, value)
        elif what in _JOB_FIELDS:
            snapshot = _job(snapshot, name, what, item, value)
        else:
            allowed = "must be grid, ZONE.power, HALL.cooling, STORE.size, or of a JOB "
            raise _refuse(item, target, allowed + ", ".join(f"JOB.{field}" for field in _JOB_FIELDS))
    return snapshot


def multi_site_what_if(snapshots: Sequence[Snapshot], text: str) -> list[Snapshot]:
    """Return the sites' snapshots with every change of the list applied; weights change at all of them."""
    changed = {s.site.name: s for s in snapshots}
    for item in text.split(","):
        site, colon, rest = item.strip().partition(":")
        if colon and site in changed:
            changed[site] = what_if(changed[site], rest)
        elif not colon and item.partition("=")[0].strip().endswith(".weight"):
            changed = {name: what_if(s, item) for name, s in changed.items()}
        else:
            names = ", ".join(changed)
            raise _refuse(
                "item", item, f"must name one of the sites {names}, such as '{snapshots[0].site.name}:grid=-20%'"
            )
    return list(changed.values())
