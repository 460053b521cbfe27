"""Quantities as people write them ("1.2 MW", "17 degC", "5 min"), read into base units (W, J, degC, s, USD per MWh)."""

import math
import re

from powerhall.runtime.decode.limits import MOST_QUANTITY

__all__ = [
    "format_energy",
    "format_power",
    "iso_duration",
    "parse_duration",
    "parse_energy",
    "parse_power",
    "parse_share",
    "parse_span",
    "parse_temperature",
]

_POWER = {"W": 1.0, "kW": 1e3, "MW": 1e6, "GW": 1e9}
_ENERGY = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9, "Wh": 3600.0, "kWh": 3.6e6, "MWh": 3.6e9, "GWh": 3.6e12}
_DURATION = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_TEMPERATURE = {"degC": (1.0, 0.0), "K": (1.0, -273.15), "degF": (5.0 / 9.0, -160.0 / 9.0)}
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_QUANTITY = re.compile(rf"\s*({_NUMBER.pattern})\s*([A-Za-z]+)\s*", re.ASCII)

_ISO_S = (0.0, 0.0, 604_800.0, 86_400.0, 3600.0, 60.0, 1.0)
_ISO_COUNT = r"(\d{1,9}(?:[.,]\d{1,9})?)"
_ISO_DURATION = re.compile(
    r"([-+]?)P" + "".join(f"(?:{_ISO_COUNT}{part})?" for part in "YMWD")
    + "(?:T" + "".join(f"(?:{_ISO_COUNT}{part})?" for part in "HMS") + ")?",
    re.ASCII | re.IGNORECASE,
)  # fmt: skip


def _split(text: str, units: list[str], example: str) -> tuple[float, str]:
    found = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[2] not in units:
        raise ValueError(f"must be a number and a unit of {', '.join(units)}, such as {example!r}")
    number = float(found[1])
    if not math.isfinite(number):
        raise ValueError(f"must be finite, such as {example!r}")
    return number, found[2]


def _within(value: float) -> float:
    if value > MOST_QUANTITY:
        raise ValueError(f"must be within {MOST_QUANTITY:.2g} base units")
    return value


def parse_power(text: str) -> float:
    """Read a power in W from text such as `"1.2 MW"`; a negative power raises ValueError."""
    number, unit = _split(text, list(_POWER), "1.2 MW")
    if number < 0:
        raise ValueError("must not be negative, such as '1.2 MW'")
    return _within(number * _POWER[unit])


def parse_energy(text: str) -> float:
    """Read an energy in J from text such as `"4 MWh"`; a negative energy raises ValueError."""
    number, unit = _split(text, list(_ENERGY), "4 MWh")
    if number < 0:
        raise ValueError("must not be negative, such as '4 MWh'")
    return _within(number * _ENERGY[unit])


def iso_duration(text: str) -> tuple[int, float] | None:
    """Read a duration of ISO 8601 (`"P1M"`, `"PT1.5H"`, `"PT1,5H"`) as whole months and s; None where it is none.

    A negative one, and a fraction of anything but the last part, raise ValueError.
    """
    found = _ISO_DURATION.fullmatch(text.strip())
    if found is None or found[0][-1] in "PTpt":
        return None
    counts = [count.replace(",", ".") if count else "" for count in found.groups()[1:]]
    given = [count for count in counts if count]
    if any("." in count for count in given[:-1]) or any("." in count for count in counts[:2]):
        raise ValueError("must have a fraction in its last part alone, and none of a month or year, such as 'PT1.5H'")
    if found[1] == "-":
        raise ValueError("must not be negative, such as 'PT1H'")
    numbers = [float(count or 0) for count in counts]
    seconds = math.fsum(number * each for number, each in zip(numbers, _ISO_S, strict=True))
    return int(numbers[0]) * 12 + int(numbers[1]), _within(seconds)


def parse_duration(text: str) -> float:
    """Read a duration in s from text such as `"5 min"`, or `"PT5M"` as ISO 8601 has it; a negative one is refused.

    Months and years of ISO 8601 have no fixed length and are refused too. Raises ValueError.
    """
    if isinstance(text, str) and (iso := iso_duration(text)) is not None:
        if iso[0]:
            raise ValueError("must be in weeks, days or less: months and years have no fixed length, such as 'P4W'")
        return iso[1]
    number, unit = _split(text, list(_DURATION), "5 min")
    if number < 0:
        raise ValueError("must not be negative, such as '5 min'")
    return _within(number * _DURATION[unit])


def parse_span(text: str, bare: str = "s") -> float:
    """Read a duration in s as `parse_duration` does; a bare number is in the unit `bare`. Raises ValueError."""
    if _NUMBER.fullmatch(text.strip()) is None:
        return parse_duration(text)
    return parse_duration(f"{float(text):.12g} {bare}")


def parse_share(text: str) -> float:
    """Read a share such as `30%` or `30` (percent) as a number from 0 to 1; anything else raises ValueError."""
    percent_sign = text.strip().endswith("%")
    number = text.strip().removesuffix("%").strip()
    percent = float(number) if _NUMBER.fullmatch(number) else -1.0
    if not 0.0 <= percent <= 100.0 or (0.0 < percent < 1.0 and not percent_sign):
        raise ValueError("must be a share from 0 to 100, such as '30%'")
    return percent / 100.0


def parse_temperature(text: str) -> float:
    """Read a temperature in degC from text such as `"17 degC"`; below absolute zero raises ValueError."""
    number, unit = _split(text, list(_TEMPERATURE), "17 degC")
    factor, offset = _TEMPERATURE[unit]
    temp_c = _within(number * factor + offset)
    if temp_c < -273.15:
        raise ValueError("must not be below absolute zero, such as '17 degC'")
    return temp_c


def _format(value: float, units: dict[str, float]) -> str:
    best = next((u for u in reversed(units) if abs(value) >= units[u]), next(iter(units)))
    return f"{value / units[best]:.4g} {best}"


def format_power(power_w: float) -> str:
    """Write a power with the unit that keeps it short: `format_power(1.2e6) == '1.2 MW'`."""
    return _format(power_w, _POWER)


def format_energy(energy_j: float) -> str:
    """Write an energy in Wh and its multiples: `format_energy(7.2e9) == '2 MWh'`."""
    return _format(energy_j, {u: _ENERGY[u] for u in ("Wh", "kWh", "MWh", "GWh")})
