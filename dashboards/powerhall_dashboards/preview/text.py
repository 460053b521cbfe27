"""Numbers as people read them: SI prefixes, units, moments."""

from datetime import UTC, datetime, tzinfo

__all__ = ["age", "moment", "value"]

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_PREFIXED = ("W", "Wh", "J", "B", "B/s")
_SHOWN = {"degC": "°C", "currency": "USD"}


def moment(time_s: float, zone: tzinfo = UTC) -> str:
    """Write a moment in a time zone."""
    return datetime.fromtimestamp(time_s, zone).strftime("%Y-%m-%d %H:%M:%S")


def age(seconds: float) -> str:
    """Write how long ago something was."""
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {name} ago"
    return f"{max(seconds, 0):.0f} s ago"


def value(number: float | str | None, unit: str, zone: tzinfo = UTC) -> str:
    """Write a value with its unit; nothing for None, a dash for a moment that is not set."""
    if number is None:
        return ""
    if isinstance(number, str):
        return number
    if unit == "time":
        return moment(number / 1000, zone) if number > 0 else "–"
    shown = _SHOWN.get(unit, unit)
    if unit in _PREFIXED:
        for size, prefix in _PREFIXES:
            if abs(number) >= size:
                return f"{_short(number / size)} {prefix}{shown}"
    return f"{_short(number)} {shown}".rstrip()


def _short(number: float) -> str:
    if number and abs(number) < 0.01:
        return f"{number:.2g}"
    size = round(abs(number), 1)
    digits = 0 if size >= 1000 or float(f"{number:.6g}").is_integer() else 1 if size >= 100 else 2
    return f"{number:,.{digits}f}"
