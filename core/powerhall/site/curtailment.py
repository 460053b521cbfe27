"""Curtailments, demand-response events and maintenance as time-varying limits, with ramps before and after.

Grids limit how fast a large load may fall and rise. With a ramp the limit comes down in steps ahead of an event and
goes up in steps after it, `STEP_S` each, so that no step changes it by more than the ramp allows in that time.
"""

import calendar
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, tzinfo
from heapq import heappop, heappush
from itertools import pairwise
from pathlib import Path

import msgspec

from powerhall.runtime.decode.csv_table import read_csv
from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import read_json
from powerhall.timeseries import Series, parse_time
from powerhall.units import iso_duration, parse_duration, parse_power

__all__ = [
    "NO_LIMIT_W",
    "OPEN_END_S",
    "STEP_S",
    "Event",
    "EventRow",
    "Ramp",
    "curtailed",
    "event_end",
    "parse_event",
    "parse_percent",
    "parse_ramp",
    "read_events",
    "says_test",
]

STEP_S = 300.0
NO_LIMIT_W = 1e15
"""Stands for "no limit" where a number is needed; JSON has no infinity."""
OPEN_END_S = 4_102_444_800.0
"""End of an event without one: the year 2100."""
_YEAR_S = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Event:
    """A limit on a zone from `start_s` to `end_s`: at most `limit_w`, or less than otherwise.

    Less by `share` of the limit that holds otherwise and by `reduce_w`.
    """

    zone: str
    start_s: float
    end_s: float
    limit_w: float | None = None
    share: float = 0.0
    reduce_w: float = 0.0

    def level_w(self, otherwise_w: float) -> float:
        """Return the limit in W during the event where it would otherwise be `otherwise_w`."""
        if self.limit_w is not None:
            return min(self.limit_w, otherwise_w)
        return max(0.0, otherwise_w * (1.0 - self.share) - self.reduce_w)


@dataclass(frozen=True, slots=True)
class Ramp:
    """How fast the limit may fall and rise, in W per s; None where it may jump."""

    down_w_per_s: float | None = None
    up_w_per_s: float | None = None


def parse_ramp(text: str) -> float:
    """Read a ramp in W per s from text such as `"5 MW/min"`; anything else raises ValueError."""
    power, slash, per = text.partition("/")
    if not slash:
        raise ValueError("must be a power per time, such as '5 MW/min'")
    rate = parse_power(power) / parse_duration(f"1 {per.strip()}")
    if rate <= 0:
        raise ValueError("must be positive, such as '5 MW/min'")
    return rate


def parse_event(  # noqa: PLR0917
    zone: str,
    start: str | float,
    end: str | float,
    power_limit: str | None,
    reduce_percent: float | str | None,
    time_zone: tzinfo | None = None,
    *,
    reduce_by: str | None = None,
) -> Event:
    """Return an event of a site file, an event file or a signal; a wrong field raises ValueError with its name first.

    A time without an offset is local to `time_zone`, or UTC. `reduce_percent` may be text such as `20%`; `reduce_by`
    is a power such as `20 kW`.
    """
    times = []
    for field, value in (("start", start), ("end", end)):
        try:
            times.append(parse_time(str(value), time_zone))
        except ValueError as error:
            raise ValueError(f"{field}: {value!r}: {error}") from None
    if times[1] <= times[0]:
        raise ValueError(f"end: {end!r}: must be after start")
    if sum(amount is not None for amount in (power_limit, reduce_percent, reduce_by)) != 1:
        raise ValueError(f"zone: {zone!r}: must give either power_limit or reduce_percent, or reduce_by")
    if reduce_by is not None:
        try:
            return Event(zone, times[0], times[1], reduce_w=parse_power(reduce_by))
        except ValueError as error:
            raise ValueError(f"reduce_by: {reduce_by!r}: {error}") from None
    if power_limit is not None:
        try:
            return Event(zone, times[0], times[1], parse_power(power_limit))
        except ValueError as error:
            raise ValueError(f"power_limit: {power_limit!r}: {error}") from None
    share = parse_percent(reduce_percent or 0.0)
    if not 0.0 <= share <= 100.0:
        raise ValueError(f"reduce_percent: {reduce_percent!r}: must be a number from 0 to 100")
    return Event(zone, times[0], times[1], share=share / 100.0)


def parse_percent(value: float | str) -> float:
    """Read a share in percent from a number or text such as `20%`; anything else raises ValueError."""
    try:
        return float(str(value).strip().removesuffix("%"))
    except ValueError:
        raise ValueError(f"reduce_percent: {value!r}: must be a number from 0 to 100") from None


def event_end(start_s: float, duration: str, time_zone: tzinfo | None = None) -> float:
    """Return the end of an event by its duration; one of 0 is open-ended, as OpenADR has it.

    Months and years of ISO 8601 are those of the calendar, in `time_zone` or UTC. Any other text raises ValueError with
    the field's name first.
    """
    try:
        months, length_s = iso_duration(duration) or (0, 0.0)
        if months:
            return _months_later(start_s, months, time_zone) + length_s
        length_s = 0.0 if duration.strip() in ("0", "0.0") else parse_duration(duration)
    except ValueError as error:
        raise ValueError(f"duration: {duration!r}: {error}") from None
    return start_s + length_s if length_s else max(OPEN_END_S, start_s + _YEAR_S)


def _months_later(start_s: float, months: int, time_zone: tzinfo | None) -> float:
    """Return the same time of day so many months later, on the last day of a shorter month."""
    start = datetime.fromtimestamp(start_s, time_zone or UTC)
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    if year > MAXYEAR:
        raise ValueError("must end before the year 10000")
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day).timestamp()


def curtailed(base: Series, events: Iterable[Event], ramp: Ramp) -> Series:
    """Return the lowest of the base limit and every event's, ramps included."""
    pieces = [piece for event in events for piece in _pieces(base, event, ramp)]
    times = sorted({*base.times_s, *(edge for start, end, _ in pieces for edge in (start, end) if edge >= 0)})
    begin = sorted((start, end, level) for start, end, level in pieces if start < end)
    begin.reverse()
    values = []
    holds: list[tuple[float, float]] = []  # level and end of those that have begun, the lowest first
    for time_s in times:
        while begin and begin[-1][0] <= time_s:
            _, end, level = begin.pop()
            heappush(holds, (level, end))
        while holds and holds[0][1] <= time_s:
            heappop(holds)
        values.append(min(base.at(time_s), holds[0][0]) if holds else base.at(time_s))
    if values[0] != base.at(times[0]):  # before its first time a series holds its first value: not that of an event
        times.insert(0, times[0] - 1.0)
        values.insert(0, base.at(times[0]))
    return Series(tuple(times), tuple(values))


def _pieces(base: Series, event: Event, ramp: Ramp) -> Iterable[tuple[float, float, float]]:
    """Yield (start, end, level) of the event itself and of the steps of its ramps."""
    edges = [event.start_s, *(t for t in base.times_s if event.start_s < t < event.end_s), event.end_s]
    for start, end in pairwise(edges):
        yield start, end, event.level_w(base.at(start))
    if ramp.down_w_per_s is not None:
        yield from _stairs(base, event.start_s, event.level_w(base.at(event.start_s)), ramp.down_w_per_s, -1)
    if ramp.up_w_per_s is not None:
        yield from _stairs(base, event.end_s, event.level_w(base.at(event.end_s - 1e-3)), ramp.up_w_per_s, 1)


def _stairs(base: Series, edge_s: float, level_w: float, rate: float, way: int) -> Iterable[tuple[float, float, float]]:
    highest = max(base.values)
    if highest >= NO_LIMIT_W:
        return
    step = 1
    while (level := level_w + (step - (way > 0)) * rate * STEP_S) < highest and step <= 10_000:
        far, near = edge_s + way * step * STEP_S, edge_s + way * (step - 1) * STEP_S
        yield min(far, near), max(far, near), level
        step += 1


class EventRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event of an events file; of `end` and `duration` one, of the three amounts one."""

    start: str | float
    end: str | float = ""
    duration: str | float = ""
    zone: str = ""
    power_limit: str | None = None
    reduce_percent: float | str | None = None
    reduce_by: str | None = None
    event_id: str = ""
    status: str = "active"
    modification: int = 0
    modification_number: int | None = None
    test_event: bool | str = False
    priority: int = 0
    created: str | float = ""
    market_context: str = ""
    comment: str = ""

    @property
    def number(self) -> int:
        """Modification, under either name."""
        return self.modification if self.modification_number is None else self.modification_number

    @property
    def counts(self) -> bool:
        """Whether it limits anything: neither over, nor a test."""
        return not says_test(self.test_event) and self.status.lower() not in ("cancelled", "canceled", "completed")


def says_test(test_event: bool | str) -> bool:
    """Return whether an event is a test: as OpenADR has it, anything but `false` in its `test_event`."""
    return str(test_event).strip().lower() not in ("false", "", "0", "no")


def read_events(path: str | Path, site: str, time_zone: tzinfo | None = None) -> tuple[Event, ...]:
    """Read events from CSV or JSON: start, end or duration, zone (the site where empty), and one amount.

    The amount is power_limit, reduce_percent or reduce_by. A duration of 0 is open-ended. As in OpenADR, of the same
    `event_id` the highest `modification_number` counts, the later one of equal ones, for each zone by itself: one event
    may limit several. A cancelled event limits nothing; cancelled without a zone it is so in all of them. A test
    changes nothing, also of an event that has its id. An empty list is fine; what does not fit raises Rejected with
    file, row and field.
    """
    path = Path(path)
    rows = read_json(path, list[EventRow]) if path.suffix == ".json" else _csv_rows(path)
    last = _newest(rows, site)
    found = []
    for number, row in enumerate(rows, 1):
        if not row.counts or (row.event_id and last[row.event_id, row.zone or site] is not row):
            continue
        try:
            start_s = parse_time(str(row.start), time_zone)
            end = row.end if row.end != "" else event_end(start_s, str(row.duration), time_zone)
            amounts = row.power_limit, row.reduce_percent
            found.append(parse_event(row.zone or site, row.start, end, *amounts, time_zone, reduce_by=row.reduce_by))
        except ValueError as error:
            raise Rejected(f"{path}: event {row.event_id or number}: {error}") from None
    return tuple(found)


def _newest(rows: Sequence[EventRow], site: str) -> dict[tuple[str, str], EventRow]:
    """Return the row that counts of each event and zone; one that cancels without a zone is of all zones."""
    zones: dict[str, set[str]] = {}
    real = [row for row in rows if not says_test(row.test_event)]
    for row in real:
        zones.setdefault(row.event_id, set()).add(row.zone or site)
    newest: dict[tuple[str, str], EventRow] = {}
    for row in real:
        of_all = not row.counts and not row.zone
        for zone in zones[row.event_id] if of_all else {row.zone or site}:
            before = newest.get((row.event_id, zone))
            if before is None or row.number >= before.number:
                newest[row.event_id, zone] = row
    return newest


def _csv_rows(path: Path) -> list[EventRow]:
    rows = []
    for number, cells in read_csv(path):
        plain: dict[str, object] = {k: v for k, v in cells.items() if v}
        try:
            for name in ("modification", "modification_number", "priority"):
                if name in plain:
                    plain[name] = int(str(plain[name]))
            rows.append(msgspec.convert(plain, EventRow))
        except (ValueError, msgspec.ValidationError) as error:
            raise Rejected(f"{path}: line {number}: {error}") from None
    return rows
