"""Shed signals as a grid operator sends them: events in OpenADR's terms, as JSON or CSV, checked field by field."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import convert
from powerhall.site.curtailment import parse_event
from powerhall.timeseries import parse_time
from powerhall.units import parse_duration

__all__ = ["MOST_BYTES", "Signal", "parse_signals"]

MOST_BYTES = 64 * 1024
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_ISO = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_LONGEST_S = 7 * 86400.0
_OVER = ("cancelled", "canceled", "completed")
_STATUS = ("active", "near", "far", "none", *_OVER)


class _SignalRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    event_id: str
    start: str | float = ""
    end: str | float = ""
    duration: str = ""
    zone: str = ""
    power_limit: str | None = None
    reduce_percent: float | None = None
    status: str = "active"
    modification: int = 0
    within: str = ""


@dataclass(frozen=True, slots=True)
class Signal:
    """One event: bring the site to `limit_w`, or down by `share` of its power at the start, until `end_s`.

    A repeated `event_id` changes nothing unless its `modification` is higher. `within_s`: how soon it must be so.
    """

    event_id: str
    start_s: float
    end_s: float
    limit_w: float | None
    share: float
    is_cancelled: bool
    modification: int
    within_s: float


def parse_signals(text: bytes, source: str, site: str, now_s: float) -> list[Signal]:
    """Read one event or a list of them from JSON, or rows of CSV; one that does not fit raises Rejected for all."""
    if len(text) > MOST_BYTES:
        raise Rejected(f"{source}: larger than {MOST_BYTES} bytes")
    rows = _json_rows(text, source) if text.lstrip()[:1] in (b"{", b"[") else _csv_rows(text, source)
    if not rows:
        raise Rejected(f"{source}: holds no event")
    return [_signal(row, source, site, now_s) for row in rows]


def _json_rows(text: bytes, source: str) -> list[_SignalRow]:
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Rejected(f"{source}: not valid JSON: {error}") from None
    return [convert(row, _SignalRow, source) for row in (data if isinstance(data, list) else [data])]


def _csv_rows(text: bytes, source: str) -> list[_SignalRow]:
    rows = []
    try:
        lines = list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Rejected(f"{source}: not valid CSV: {error}") from None
    for number, cells in enumerate(lines, 2):
        plain: dict[str, object] = {str(key): value for key, value in cells.items() if value}
        try:
            for name, kind in (("reduce_percent", float), ("modification", int)):
                if name in plain:
                    plain[name] = kind(str(plain[name]))
        except ValueError:
            raise Rejected(f"{source}: line {number}: {name}: {plain[name]!r}: must be a number") from None
        rows.append(convert(plain, _SignalRow, f"{source}: line {number}"))
    return rows


def _read(where: str, field: str, text: str, reader: Callable[[str], float]) -> float:
    try:
        return reader(text)
    except ValueError as error:
        raise Rejected.field(where, field, text, str(error)) from None


def _duration_s(text: str) -> float:
    """Read `1 h`, or `PT1H` as OpenADR and ISO 8601 write it."""
    found = _ISO.fullmatch(text)
    if found is None or text in ("P", "PT"):
        return parse_duration(text)
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _signal(row: _SignalRow, source: str, site: str, now_s: float) -> Signal:
    where = f"{source}: event {row.event_id[:128]!r}"
    if not _ID.fullmatch(row.event_id):
        raise Rejected.field(source, "event_id", row.event_id[:128], "must be 1 to 128 letters, digits and ._:-")
    if row.zone not in ("", site):
        allowed = f"must be the site, {site!r}: limits of a hall belong into the site's own events"
        raise Rejected.field(where, "zone", row.zone, allowed)
    if row.status.lower() not in _STATUS:
        raise Rejected.field(where, "status", row.status, f"must be one of {', '.join(_STATUS)}")
    if row.modification < 0:
        raise Rejected.field(where, "modification", row.modification, "must not be negative")
    is_over = row.status.lower() in _OVER
    if row.end == "" and not row.duration and not is_over:
        raise Rejected.field(where, "end", "", "must be given, or a duration: a shed without an end never recovers")
    start_s = now_s if row.start == "" else _read(where, "start", str(row.start), parse_time)
    span_s = _read(where, "duration", row.duration, _duration_s) if row.duration else 0.0
    end_s = start_s + span_s if row.end == "" else _read(where, "end", str(row.end), parse_time)
    within_s = _read(where, "within", row.within, _duration_s) if row.within else 10.0
    if is_over:
        return Signal(row.event_id, start_s, end_s, None, 0.0, True, row.modification, within_s)
    try:
        event = parse_event(site, start_s, end_s, row.power_limit, row.reduce_percent)
    except ValueError as error:
        raise Rejected(f"{where}: {error}") from None
    if event.limit_w is None and not 0.0 < event.share <= 1.0:
        raise Rejected.field(where, "reduce_percent", row.reduce_percent, "must be above 0 and at most 100")
    if end_s <= now_s:
        raise Rejected.field(where, "end", row.end or row.duration, "must lie in the future: the event is over")
    if end_s - start_s > _LONGEST_S or start_s > now_s + _LONGEST_S:
        raise Rejected.field(where, "end", row.end or row.duration, "must be within 7 days")
    if not 1.0 <= within_s <= 3600.0:
        raise Rejected.field(where, "within", row.within, "must be from 1 s to 1 h")
    return Signal(row.event_id, start_s, end_s, event.limit_w, event.share, False, row.modification, within_s)
