"""Curtailments, demand-response events and maintenance as time-varying limits, with ramps before and after.

Grids limit how fast a large load may fall and rise. With a ramp the limit comes down in steps ahead of an event and
goes up in steps after it, `STEP_S` each, so that no step changes it by more than the ramp allows in that time.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec

from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import read_json
from powerhall.timeseries import Series, open_text, parse_time
from powerhall.units import parse_duration, parse_power

__all__ = ["NO_LIMIT_W", "STEP_S", "Event", "Ramp", "curtailed", "parse_event", "parse_ramp", "read_events"]

STEP_S = 300.0
NO_LIMIT_W = 1e15
"""Stands for "no limit" where a number is needed; JSON has no infinity."""


@dataclass(frozen=True, slots=True)
class Event:
    """A limit on a zone from `start_s` to `end_s`: at most `limit_w`, or less by `share` of the limit otherwise."""

    zone: str
    start_s: float
    end_s: float
    limit_w: float | None = None
    share: float = 0.0

    def level_w(self, otherwise_w: float) -> float:
        """Return the limit in W during the event where it would otherwise be `otherwise_w`."""
        return otherwise_w * (1.0 - self.share) if self.limit_w is None else min(self.limit_w, otherwise_w)


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


def parse_event(
    zone: str, start: str | float, end: str | float, power_limit: str | None, reduce_percent: float | None
) -> Event:
    """Return an event of a site or event file; a wrong field raises ValueError that begins with its name."""
    times = []
    for field, value in (("start", start), ("end", end)):
        try:
            times.append(parse_time(str(value)))
        except ValueError as error:
            raise ValueError(f"{field}: {value!r}: {error}") from None
    if times[1] <= times[0]:
        raise ValueError(f"end: {end!r}: must be after start")
    if (power_limit is None) == (reduce_percent is None):
        raise ValueError(f"zone: {zone!r}: must give either power_limit or reduce_percent")
    if power_limit is not None:
        try:
            return Event(zone, times[0], times[1], parse_power(power_limit))
        except ValueError as error:
            raise ValueError(f"power_limit: {power_limit!r}: {error}") from None
    share = float(reduce_percent or 0.0)
    if not 0.0 <= share <= 100.0:
        raise ValueError(f"reduce_percent: {reduce_percent!r}: must be a number from 0 to 100")
    return Event(zone, times[0], times[1], share=share / 100.0)


def curtailed(base: Series, events: Iterable[Event], ramp: Ramp) -> Series:
    """Return the lowest of the base limit and every event's, ramps included."""
    pieces = [piece for event in events for piece in _pieces(base, event, ramp)]
    times = sorted({*base.times_s, *(edge for start, end, _ in pieces for edge in (start, end) if edge >= 0)})
    values = []
    for time_s in times:
        levels = [level for start, end, level in pieces if start <= time_s < end]
        values.append(min([base.at(time_s), *levels]))
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


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    start: str | float
    end: str | float = ""
    duration: str = ""
    zone: str = ""
    power_limit: str | None = None
    reduce_percent: float | None = None
    event_id: str = ""
    status: str = "active"


def read_events(path: str | Path, site: str) -> tuple[Event, ...]:
    """Read events from CSV or JSON: start, end or duration, zone (the site where empty), power_limit or reduce_percent.

    `event_id` and `status` may stand beside; a cancelled event (as OpenADR has them) does not count. An empty list is
    fine; what does not fit raises Rejected with file, row and field.
    """
    path = Path(path)
    rows = read_json(path, list[_Row]) if path.suffix == ".json" else _csv_rows(path)
    found = []
    for number, row in enumerate(rows, 1):
        if row.status.lower() in ("cancelled", "canceled", "completed"):
            continue
        try:
            end = row.end if row.end != "" else parse_time(str(row.start)) + parse_duration(row.duration)
            found.append(parse_event(row.zone or site, row.start, end, row.power_limit, row.reduce_percent))
        except ValueError as error:
            raise Rejected(f"{path}: event {row.event_id or number}: {error}") from None
    return tuple(found)


def _csv_rows(path: Path) -> list[_Row]:
    rows = []
    for number, cells in enumerate(csv.DictReader(open_text(path)), 2):
        plain: dict[str, object] = {k: v for k, v in cells.items() if v}
        try:
            if "reduce_percent" in plain:
                plain["reduce_percent"] = float(str(plain["reduce_percent"]))
            rows.append(msgspec.convert(plain, _Row))
        except (ValueError, msgspec.ValidationError) as error:
            raise Rejected(f"{path}: line {number}: {error}") from None
    return rows
