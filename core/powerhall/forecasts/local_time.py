"""Times of a file: with an offset as they say, without one in the time zone of the site, daylight saving included."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from powerhall.timeseries import parse_moment

__all__ = ["UTC_COLUMNS", "LocalTimes", "parse_zone", "parse_zone_or_offset", "time_columns"]

LOCAL_COLUMNS = ("datetime_local", "time_local")
UTC_COLUMNS = ("time_s", "time_utc", "datetime_utc")
_EITHER_COLUMNS = ("time", "timestamp", "datetime")


def time_columns() -> tuple[str, ...]:
    """Return the names that a column of times may have."""
    return (*UTC_COLUMNS, *_EITHER_COLUMNS, *LOCAL_COLUMNS)


def parse_zone(name: str) -> tzinfo:
    """Return the time zone of an IANA name such as `Europe/Berlin`; an unknown name raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be an IANA time zone, such as 'Europe/Berlin' or 'UTC'") from None


def parse_zone_or_offset(text: str) -> tzinfo:
    """Return the time zone of an IANA name or of an offset such as `+01:00`; anything else raises ValueError."""
    if text[:1] in ("+", "-"):
        try:
            offset = datetime.fromisoformat(f"2000-01-01T00:00:00{text}").utcoffset()
            return timezone(offset or timedelta())
        except ValueError:
            raise ValueError("must be an offset such as '+01:00'") from None
    return parse_zone(text)


class LocalTimes:
    """Reads the times of one column in the order of the clock.

    A naive time that the clock shows twice in autumn is its first hour where it stands first, its second where it
    stands again. One that the clock leaves out in spring gives None: no such hour exists.
    """

    def __init__(self, column: str, zone: tzinfo | None) -> None:
        self._column = column
        self._zone = UTC if column in UTC_COLUMNS else zone
        self._twice: set[datetime] = set()

    def read(self, text: str) -> float | None:
        """Return seconds since the epoch; anything but a time raises ValueError."""
        moment = parse_moment(text)
        if isinstance(moment, float):
            return moment
        if moment.tzinfo is not None:
            return moment.timestamp()
        zone = self._zone
        if zone is None:
            if self._column in LOCAL_COLUMNS:
                raise ValueError("is local time without an offset; give site.timezone in the site file")
            zone = UTC
        return self._placed(moment, zone)

    def _placed(self, moment: datetime, zone: tzinfo) -> float | None:
        first = moment.replace(tzinfo=zone)
        second = first.replace(fold=1)
        if first.utcoffset() == second.utcoffset():
            return first.timestamp()
        if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment:
            return None
        if moment in self._twice:
            return second.timestamp()
        self._twice.add(moment)
        return first.timestamp()
