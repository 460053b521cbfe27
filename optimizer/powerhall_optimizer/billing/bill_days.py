"""Bills of whole days in the store, which dashboards add up over any range of days.

A day that is written again overwrites itself; names that its bill has no more get zeros, so that sums stay the meter's.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from powerhall.store import Query, Select, Store
from powerhall.store.line_protocol import Point, encode
from powerhall.store.schema import MEASUREMENTS
from powerhall_optimizer.billing.allocation import Amounts
from powerhall_optimizer.billing.bill import Bill, JobLine, Level
from powerhall_optimizer.billing.bill_output import RESTS

__all__ = ["days_of", "last_days", "write_day"]

_LEVELS: tuple[Level, ...] = ("tenant", "project", "hall")
_NAMED: tuple[Level, ...] = ("job", "user")
_TOP = 50
"""Rows of jobs and of users a day; the command has all of them."""
Fields = dict[str, float | str]
Key = tuple[str, ...]


def days_of(span: tuple[float, float], zone: tzinfo | None, now_s: float) -> list[tuple[float, float]]:
    """Return start and end of the calendar days of the site that begin in a span and before now."""
    start_s, end_s = span
    day = datetime.fromtimestamp(start_s, zone or UTC).date()
    found: list[tuple[float, float]] = []
    while True:
        low_s, high_s = (_midnight(day + timedelta(days=n), zone) for n in (0, 1))
        if low_s >= min(end_s, now_s):
            return found
        if low_s >= start_s:
            found.append((low_s, high_s))
        day += timedelta(days=1)


def last_days(count: int, zone: tzinfo | None, now_s: float) -> tuple[float, float]:
    """Return the span of the last days of the site's calendar, that of now included."""
    today = datetime.fromtimestamp(now_s, zone or UTC).date()
    return _midnight(today - timedelta(days=count - 1), zone), _midnight(today + timedelta(days=1), zone)


def _midnight(day: date, zone: tzinfo | None) -> float:
    return datetime.combine(day, time(), zone or UTC).timestamp()


def write_day(store: Store, bill: Bill) -> int:
    """Write the bill of a day; return the number of its points."""
    points = [*_level_points(bill), *_top_points(bill), _meter_point(bill), *_peak_points(bill)]
    points += _emptied(store, bill, points)
    store.write(b"".join(map(encode, points)))
    return len(points)


def _amounts(amounts: Amounts) -> Fields:
    """Return the fields of a line; cost and CO2 are absent where nothing of it has a price or an intensity."""
    found: Fields = {
        "gpu_h": amounts.gpu_s / 3600.0,
        "it_j": amounts.it_j,
        "energy_j": amounts.energy_j,
        "water_l": amounts.water_l,
        "unpriced_j": amounts.unpriced_j,
        "unmetered_j": amounts.unmetered_j,
    }
    if amounts.unpriced_j < amounts.energy_j:
        found["cost"] = amounts.cost_usd
    if amounts.uncounted_j < amounts.energy_j:
        found["co2_kg"] = amounts.co2_g / 1000.0
    return found


def _point(bill: Bill, measurement: str, tags: dict[str, str], fields: Fields) -> Point:
    return Point(measurement, {"site": bill.site, **tags}, fields, round(bill.start_s * 1000))


def _level_points(bill: Bill) -> Iterator[Point]:
    for level in _LEVELS:
        for name, amounts in bill.grouped(level).items():
            yield _point(bill, "bill_day", {"level": level, "name": name}, _amounts(amounts))
    parts = {"jobs": bill.jobs, **{what: bill.rest(what) for what in RESTS}}
    for name, amounts in parts.items():
        yield _point(bill, "bill_day", {"level": "part", "name": name}, _amounts(amounts))


def _top_points(bill: Bill) -> Iterator[Point]:
    for level in _NAMED:
        lines: dict[str, list[JobLine]] = {}
        for line in bill.lines:
            lines.setdefault(line.key(level), []).append(line)
        for row, (name, amounts) in enumerate(list(bill.grouped(level).items())[:_TOP]):
            fields: Fields = {"job": name if level == "job" else "-", **_owner(lines[name])}
            yield _point(bill, "bill_top", {"level": level, "row": f"{row:03d}"}, fields | _amounts(amounts))


def _owner(lines: Sequence[JobLine]) -> Fields:
    """Return who stands behind some lines; a user may have jobs of several projects."""
    names = {
        "user_hash": {line.user or "-" for line in lines},
        "project": {line.owner.project for line in lines},
        "tenant": {line.owner.tenant for line in lines},
    }
    return {key: next(iter(found)) if len(found) == 1 else "several" for key, found in names.items()}


def _meter_point(bill: Bill) -> Point:
    gaps: Fields = {"billed_j": bill.jobs.energy_j, "gap_h": sum((gap.hours for gap in bill.gaps), 0.0)}
    meter = bill.rest("meter")
    jobs: Fields = {"gpu_h": bill.jobs.gpu_s / 3600.0, "unmetered_j": bill.jobs.unmetered_j}
    return _point(bill, "bill_meter", {}, _amounts(meter) | jobs | gaps)


def _peak_points(bill: Bill) -> Iterator[Point]:
    for peak in bill.peaks:
        if peak.at_s is not None:
            yield _point(
                bill, "bill_peak", {"charge": peak.charge.name}, {"power_w": peak.power_w, "cost": peak.cost_usd}
            )


def _emptied(store: Store, bill: Bill, points: Sequence[Point]) -> Iterator[Point]:
    """Yield zeros for what an earlier bill of the day had and this one has not."""
    for measurement in ("bill_day", "bill_top"):
        tags = MEASUREMENTS[measurement].tags[1:]
        query = Query(measurement, (Select("energy_j"),), {"site": bill.site}, tags)
        written = {_key(point.tags, tags) for point in points if point.measurement == measurement}
        there = {_key(row.tags, tags) for row in store.query(query, bill.start_s, bill.start_s + 1.0)}
        for key in sorted(there - written):
            zeros = _amounts(Amounts()) | {"cost": 0.0, "co2_kg": 0.0}
            yield _point(bill, measurement, dict(zip(tags, key, strict=True)), zeros)


def _key(found: Mapping[str, str], tags: Sequence[str]) -> Key:
    return tuple(found.get(tag, "") for tag in tags)
