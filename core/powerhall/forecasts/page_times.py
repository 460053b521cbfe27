"""Times as the pages of a site show them: in its time zone, which the page names once."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from powerhall.forecasts.local_time import parse_zone

__all__ = ["local_words", "moment_in", "near", "page_zone"]

_UTC_TIME = re.compile(r"20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d(?::[0-5]\d)?Z")


def page_zone(name: str, at_s: float) -> tzinfo:
    """Return the one offset to UTC that a page of a site shows all its times in: the one in force at `at_s`.

    In the night in which clocks change, each time of the page still is one moment. A name that is empty, or that this
    host does not know, gives UTC.
    """
    try:
        local = datetime.fromtimestamp(at_s, parse_zone(name or "UTC"))
    except ValueError:
        return UTC
    return timezone(local.utcoffset() or timedelta(), local.tzname() or name)


def moment_in(zone: tzinfo, time_s: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Write a moment with the zone of `page_zone`, such as `2026-07-01 14:00:00 CEST (UTC+02:00)`."""
    local = datetime.fromtimestamp(time_s, zone)
    offset = local.isoformat()[-6:]
    name = "UTC" if zone.utcoffset(local) == timedelta() else f"{local.tzname()} (UTC{offset})"
    return f"{local.strftime(form)} {name}"


def near(time_s: float, end_s: float, zone: tzinfo = UTC) -> str:
    """Write a moment beside another one: the time alone on the same day, else without the year."""
    when, end = datetime.fromtimestamp(time_s, zone), datetime.fromtimestamp(end_s, zone)
    if when.date() == end.date():
        return when.strftime("%H:%M:%S")
    return when.strftime("%m-%d %H:%M" if abs(when - end) < timedelta(days=300) else "%Y-%m-%d")


def local_words(words: str, end_s: float, zone: tzinfo) -> str:
    """Write the UTC times within a sentence of a plan, such as `2026-07-15T20:35Z`, as times beside `end_s`."""

    def written(found: re.Match[str]) -> str:
        time_s = datetime.fromisoformat(found[0]).timestamp()
        shown = near(time_s, end_s, zone)
        return shown[:5] if shown[2] == ":" else shown

    return _UTC_TIME.sub(written, words)
