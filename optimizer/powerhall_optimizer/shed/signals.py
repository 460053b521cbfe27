"""Shed signals as a grid operator sends them: events in OpenADR's terms, as JSON or CSV, checked field by field."""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo

import msgspec

from powerhall.runtime.decode.bytes_in import utf8
from powerhall.runtime.decode.csv_table import CsvTable
from powerhall.runtime.decode.json_data import decode_plain_json
from powerhall.runtime.decode.numbers_in import whole
from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import convert
from powerhall.site.curtailment import Event, parse_event, says_test
from powerhall.timeseries import parse_time
from powerhall.units import parse_duration

__all__ = ["LONGEST_S", "MOST_BYTES", "Reduction", "Signal", "is_cut_off", "parse_signals"]

MOST_BYTES = 64 * 1024
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_BOM = b"\xef\xbb\xbf"
"""Byte order mark, with which some programs begin UTF-8."""
LONGEST_S = 7 * 86400.0
_HIGHEST_MODIFICATION = 2**31 - 1
_MOST_EVENTS = 100
_FIRST_S, _LAST_S = 0.0, 253_370_764_800.0
"""Times from 1970 to 9998: later ones do not fit every calendar."""
_HIGHEST_W = 1e12
_MOST_CHARS = 400
"""Longest text of a refusal; it quotes what came in."""
_OVER = ("cancelled", "canceled", "completed")
_STATUS = ("active", "near", "far", "none", *_OVER)


class _SignalRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    event_id: str
    start: str | float = ""
    end: str | float = ""
    duration: str | float = ""
    zone: str = ""
    power_limit: str | None = None
    reduce_percent: float | str | None = None
    reduce_by: str | None = None
    status: str = "active"
    modification: int = 0
    modification_number: int | None = None
    within: str = ""
    test_event: bool | str = False
    priority: int = 0
    created: str | float = ""
    market_context: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Reduction:
    """A cut below the power at the start: by `share` of it, and by `by_w` watts."""

    share: float = 0.0
    by_w: float = 0.0

    def limit_w(self, baseline_w: float) -> float:
        """Return the limit in W that it gives at this power in W."""
        return max(0.0, baseline_w * (1.0 - self.share) - self.by_w)


@dataclass(frozen=True, slots=True)
class Signal:
    """One event: bring the site to `limit_w`, or down by `share` and `reduce_w` from its power at the start.

    A repeated `event_id` changes nothing unless its `modification` is higher; a cancellation also counts at the same
    modification, and never at a lower one. `within_s`: how soon it must be so; it holds until `end_s`. One that
    `is_test` is checked and changes nothing.
    """

    event_id: str
    start_s: float
    end_s: float
    limit_w: float | None
    share: float
    is_cancelled: bool
    modification: int
    within_s: float
    reduce_w: float = 0.0
    is_test: bool = False


def parse_signals(text: bytes, source: str, site: str, now_s: float, zone: tzinfo | None = None) -> list[Signal]:
    """Read one event or a list of them from JSON, or rows of CSV; one that does not fit raises Rejected for all.

    Times without an offset are local to `zone`, or UTC, as those of the site file are.
    """
    if len(text) > MOST_BYTES:
        raise Rejected(f"{source}: larger than {MOST_BYTES} bytes")
    try:
        return _signals(text.removeprefix(_BOM), source, site, now_s, zone)
    except Rejected as error:
        line = str(error)
        raise Rejected(line if len(line) <= _MOST_CHARS else f"{line[:_MOST_CHARS]} ...") from None


def _signals(text: bytes, source: str, site: str, now_s: float, zone: tzinfo | None) -> list[Signal]:
    rows = _json_rows(text, source) if text.lstrip()[:1] in (b"{", b"[") else _csv_rows(text, source)
    if not rows:
        raise Rejected(f"{source}: holds no event")
    if len(rows) > _MOST_EVENTS:
        raise Rejected(f"{source}: holds {len(rows)} events: must be at most {_MOST_EVENTS}")
    return [_signal(row, source, site, now_s, zone) for row in rows]


def _json_rows(text: bytes, source: str) -> list[_SignalRow]:
    data = decode_plain_json(text, source, MOST_BYTES)
    return [convert(row, _SignalRow, source) for row in (data if isinstance(data, list) else [data])]


def _csv_rows(text: bytes, source: str) -> list[_SignalRow]:
    rows = []
    table = CsvTable(io.StringIO(utf8(text, source), newline=""), source)
    for number, cells in table:
        plain: dict[str, object] = {str(key): value for key, value in cells.items() if value}
        try:
            for name in ("modification", "modification_number", "priority"):
                if name in plain:
                    plain[name] = whole(str(plain[name]))
        except ValueError:
            raise Rejected(f"{source}: line {number}: {name}: {plain[name]!r}: must be a number") from None
        rows.append(convert(plain, _SignalRow, f"{source}: line {number}"))
    return rows


def _read(where: str, field: str, text: str, reader: Callable[[str], float]) -> float:
    try:
        return reader(text)
    except (ValueError, OverflowError) as error:
        raise Rejected.field(where, field, text[:128], str(error)) from None


def _time(where: str, field: str, value: str | float, zone: tzinfo | None) -> float:
    """Read a time; one that no calendar has is refused."""
    time_s = _read(where, field, str(value), lambda text: parse_time(text, zone))
    if not _FIRST_S <= time_s <= _LAST_S:
        raise Rejected.field(where, field, str(value)[:128], "must be from 1970 to 9998")
    return time_s


def _duration(where: str, field: str, text: str) -> float:
    duration_s = _read(where, field, text, _duration_s)
    if not math.isfinite(duration_s):
        raise Rejected.field(where, field, text[:128], "must be finite")
    return duration_s


def _duration_s(text: str) -> float:
    """Read `1 h`, or `PT1H` as OpenADR and ISO 8601 write it."""
    return 0.0 if text.strip() in ("0", "0.0") else parse_duration(text)


def _signal(row: _SignalRow, source: str, site: str, now_s: float, zone: tzinfo | None) -> Signal:
    where = f"{source}: event {row.event_id[:128]!r}"
    if not _ID.fullmatch(row.event_id):
        raise Rejected.field(source, "event_id", row.event_id[:128], "must be 1 to 128 letters, digits and ._:-")
    if row.zone not in ("", site):
        allowed = f"must be the site, {site!r}: limits of a hall belong into the site's own events"
        raise Rejected.field(where, "zone", row.zone, allowed)
    if row.status.lower() not in _STATUS:
        raise Rejected.field(where, "status", row.status, f"must be one of {', '.join(_STATUS)}")
    number = row.modification if row.modification_number is None else row.modification_number
    if not 0 <= number <= _HIGHEST_MODIFICATION:
        raise Rejected.field(where, "modification", number, f"must be from 0 to {_HIGHEST_MODIFICATION}")
    is_over = row.status.lower() in _OVER
    duration = str(row.duration)
    if row.end == "" and not duration and not is_over:
        raise Rejected.field(where, "end", "", "must be given, or a duration: a shed without an end never recovers")
    start_s = now_s if row.start == "" else _time(where, "start", row.start, zone)
    span_s = _duration(where, "duration", duration) or LONGEST_S if duration else 0.0  # 0: open-ended
    end_s = start_s + span_s if row.end == "" else _time(where, "end", row.end, zone)
    within_s = _duration(where, "within", row.within) if row.within else 10.0
    if not 1.0 <= within_s <= 3600.0:
        raise Rejected.field(where, "within", row.within[:128], "must be from 1 s to 1 h")
    is_test = says_test(row.test_event)
    if is_over:
        return Signal(row.event_id, start_s, end_s, None, 0.0, True, number, within_s, is_test=is_test)
    try:
        event = parse_event(site, start_s, end_s, row.power_limit, row.reduce_percent, reduce_by=row.reduce_by)
    except ValueError as error:
        raise Rejected(f"{where}: {error}") from None
    _check_event(row, event, where, now_s)
    amount = event.limit_w, event.share
    return Signal(row.event_id, start_s, end_s, *amount, False, number, within_s, event.reduce_w, is_test)


def _check_event(row: _SignalRow, event: Event, where: str, now_s: float) -> None:
    """Refuse an amount or a time that no event can have."""
    if event.limit_w is not None and event.limit_w > _HIGHEST_W:
        raise Rejected.field(where, "power_limit", row.power_limit, "must be at most 1000 GW")
    if row.reduce_by is not None and not 0.0 < event.reduce_w <= _HIGHEST_W:
        raise Rejected.field(where, "reduce_by", row.reduce_by[:128], "must be above 0 and at most 1000 GW")
    if row.reduce_percent is not None and not 0.0 < event.share <= 1.0:
        raise Rejected.field(where, "reduce_percent", row.reduce_percent, "must be above 0 and at most 100")
    if event.end_s <= now_s:
        raise Rejected.field(where, "end", row.end or row.duration, "must lie in the future: the event is over")
    if event.end_s - event.start_s > LONGEST_S or event.start_s > now_s + LONGEST_S:
        raise Rejected.field(where, "end", row.end or row.duration, "must be within 7 days")


def is_cut_off(text: bytes) -> bool:
    """Return whether this is the beginning of a signal that has no end yet: open JSON, or CSV without a last newline.

    What is complete and wrong is not cut off.
    """
    text = text.removeprefix(_BOM)
    if text.lstrip()[:1] not in (b"{", b"["):
        return not text.endswith((b"\n", b"\r"))
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return "truncated" in str(error)
    return False
