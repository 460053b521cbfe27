"""Quantities as people write them ("1.2 MW", "17 degC", "5 min"), read into base units (W, J, degC, s, USD per MWh)."""

import math
import re

__all__ = ["format_energy", "format_power", "parse_duration", "parse_energy", "parse_power", "parse_temperature"]

_POWER = {"W": 1.0, "kW": 1e3, "MW": 1e6, "GW": 1e9}
_ENERGY = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9, "Wh": 3600.0, "kWh": 3.6e6, "MWh": 3.6e9, "GWh": 3.6e12}
_DURATION = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_TEMPERATURE = {"degC": (1.0, 0.0), "K": (1.0, -273.15), "degF": (5.0 / 9.0, -160.0 / 9.0)}
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z]+)\s*")


def _split(text: str, units: list[str], example: str) -> tuple[float, str]:
    found = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[2] not in units:
        raise ValueError(f"must be a number and a unit of {', '.join(units)}, such as {example!r}")
    number = float(found[1])
    if not math.isfinite(number):
        raise ValueError(f"must be finite, such as {example!r}")
    return number, found[2]


def parse_power(text: str) -> float:
    """Read a power in W from text such as `"1.2 MW"`; a negative power raises ValueError."""
    number, unit = _split(text, list(_POWER), "1.2 MW")
    if number < 0:
        raise ValueError("must not be negative, such as '1.2 MW'")
    return number * _POWER[unit]


def parse_energy(text: str) -> float:
    """Read an energy in J from text such as `"4 MWh"`; a negative energy raises ValueError."""
    number, unit = _split(text, list(_ENERGY), "4 MWh")
    if number < 0:
        raise ValueError("must not be negative, such as '4 MWh'")
    return number * _ENERGY[unit]


def parse_duration(text: str) -> float:
    """Read a duration in s from text such as `"5 min"`; a negative duration raises ValueError."""
    number, unit = _split(text, list(_DURATION), "5 min")
    if number < 0:
        raise ValueError("must not be negative, such as '5 min'")
    return number * _DURATION[unit]


def parse_temperature(text: str) -> float:
    """Read a temperature in degC from text such as `"17 degC"`; below absolute zero raises ValueError."""
    number, unit = _split(text, list(_TEMPERATURE), "17 degC")
    factor, offset = _TEMPERATURE[unit]
    temp_c = number * factor + offset
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
