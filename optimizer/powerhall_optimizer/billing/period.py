"""The period of a bill or a budget: a span of time, or a month or a year of the site's calendar."""

import re
from datetime import UTC, datetime, tzinfo

from powerhall.timeseries import parse_time

__all__ = ["month_of", "month_span", "parse_period", "parse_year", "year_span"]

_MONTH = re.compile(r"(\d{4})-(\d{2})")


def parse_period(text: str, zone: tzinfo | None) -> tuple[float, float]:
    """Read a month such as `2026-11` as (start, end) in s since the epoch, by the site's calendar; else ValueError."""
    found = _MONTH.fullmatch(text.strip())
    if found is None or not 1 <= int(found[2]) <= 12 or not 1970 <= int(found[1]) <= 9998:
        raise ValueError("must be a month, such as '2026-11'")
    return month_span(int(found[1]), int(found[2]), zone)


def month_span(year: int, month: int, zone: tzinfo | None) -> tuple[float, float]:
    """Return start and end of a month in s since the epoch; months of a clock change have an hour less or more."""
    after = (year + month // 12, month % 12 + 1)
    return _first(year, month, zone), _first(*after, zone)


def month_of(time_s: float, zone: tzinfo | None) -> tuple[float, float]:
    """Return start and end of the month that a time is in."""
    at = datetime.fromtimestamp(time_s, zone or UTC)
    return month_span(at.year, at.month, zone)


def parse_year(text: str) -> int:
    """Read a year from 1970 to 9998; else ValueError."""
    if not re.fullmatch(r"\d{4}", text.strip()) or not 1970 <= int(text) <= 9998:
        raise ValueError("must be a year, such as '2026'")
    return int(text)


def year_span(year: int, zone: tzinfo | None) -> tuple[float, float]:
    """Return start and end of a year in s since the epoch."""
    return _first(year, 1, zone), _first(year + 1, 1, zone)


def _first(year: int, month: int, zone: tzinfo | None) -> float:
    return parse_time(f"{year:04d}-{month:02d}-01", zone)
