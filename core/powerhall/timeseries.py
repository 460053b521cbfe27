"""Step functions of time: budgets, prices and weather, sampled on a plan's slots."""

import math
import re
from bisect import bisect_right
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

__all__ = ["Series", "parse_moment", "parse_time"]

_LAST_S = 253_402_300_799.0
"""The last second of the year 9999, beyond which no calendar of Python goes."""
_NAMED_ZONE = re.compile(r"(\S*\d\S*(?: \S*\d\S*)?)(?: | ?\[)([A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*)\]?")
_END_OF_DAY = re.compile(r"(\d{4}-?\d{2}-?\d{2}[T ])24:?00(?::?00(?:\.0+)?)?(.*)")


class Series(msgspec.Struct, frozen=True):
    """A step function: `values[i]` holds from `times_s[i]` (seconds since the epoch) until the next time.

    Times rise strictly; before the first time the first value holds, after the last the last.
    """

    times_s: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, time_s: float) -> float:
        """Return the value in force at `time_s`."""
        return self.values[max(0, bisect_right(self.times_s, time_s) - 1)]

    def slots(self, start_s: int, slot_s: int, count: int, pick: str = "min") -> tuple[float, ...]:
        """Sample `count` slots; within a slot the "min", "max" or time-weighted "mean" of the steps is taken."""
        return tuple(self._over(start_s + i * slot_s, start_s + (i + 1) * slot_s, pick) for i in range(count))

    def _over(self, start_s: float, end_s: float, pick: str) -> float:
        first = max(0, bisect_right(self.times_s, start_s) - 1)
        edges = [start_s]
        values = [self.values[first]]
        for i in range(first + 1, len(self.times_s)):
            if self.times_s[i] >= end_s:
                break
            if self.times_s[i] > start_s:
                edges.append(self.times_s[i])
                values.append(self.values[i])
        if pick == "min":
            return min(values)
        if pick == "max":
            return max(values)
        edges.append(end_s)
        return sum(v * (b - a) for v, a, b in zip(values, edges, edges[1:], strict=False)) / (end_s - start_s)


def parse_moment(text: str) -> float | datetime:
    """Read seconds since the epoch, or an ISO 8601 time with or without offset; 24:00 is the end of a day.

    The name of a time zone may follow: `2026-10-25T01:30 Europe/Berlin`. An hour that is there twice is the first.
    """
    try:
        number = float(text)
    except ValueError:
        return _iso_moment(text.strip())
    if not math.isfinite(number):
        raise ValueError("must be finite")
    if abs(number) > _LAST_S:
        raise ValueError("must be seconds since the epoch, before the year 10000")
    return number


def _iso_moment(text: str) -> datetime:
    if named := _NAMED_ZONE.fullmatch(text):
        moment = _iso_moment(named[1])
        if moment.tzinfo is not None:
            raise ValueError("must have an offset or a time zone, not both")
        try:
            return moment.replace(tzinfo=ZoneInfo(named[2]))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{named[2]!r} must be an IANA time zone, such as 'Europe/Berlin'") from None
    end_of_day = _END_OF_DAY.fullmatch(text)
    try:
        if end_of_day is None:
            return datetime.fromisoformat(text)
        return datetime.fromisoformat(f"{end_of_day[1]}00:00{end_of_day[2]}") + timedelta(days=1)
    except (ValueError, OverflowError):
        raise ValueError("must be seconds since the epoch or an ISO 8601 time") from None


def parse_time(text: str, zone: tzinfo | None = None) -> float:
    """Read seconds since the epoch from a number or an ISO 8601 time; without offset it is local to `zone`, or UTC."""
    moment = parse_moment(text)
    if isinstance(moment, float):
        return moment
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone or UTC)).timestamp()
