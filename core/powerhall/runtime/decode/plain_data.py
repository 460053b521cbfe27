"""Limits inside plain data (tables, lists, numbers, text) that a parser has returned: depth and magnitude."""

import math
from collections.abc import Iterator

from powerhall.runtime.decode.limits import MOST_DEPTH, MOST_NUMBER
from powerhall.runtime.errors import Rejected

__all__ = ["check_plain"]

_Step = tuple[str, object]
_MOST_SHOWN_BITS = 4096
"""Larger numbers are shown by their magnitude: Python refuses to write more than 4300 digits."""


def check_plain(data: object, source: str) -> None:
    """Raise Rejected at the first number that is not finite or too large, and where data is nested too deep."""
    levels: list[Iterator[_Step]] = [iter([("", data)])]
    names: list[str] = [""]
    while levels:
        step = next(levels[-1], None)
        if step is None:
            levels.pop()
            names.pop()
            continue
        name, value = step
        if type(value) in (dict, list):
            if len(levels) > MOST_DEPTH:
                raise Rejected(f"{source}: {_field(names, name)[:200]}: nested deeper than {MOST_DEPTH} levels")
            levels.append(_steps(value))
            names.append(name)
        elif type(value) in (float, int) and not -MOST_NUMBER <= value <= MOST_NUMBER:  # type: ignore[operator]
            raise Rejected(f"{source}: {_field(names, name)}: {_shown(value)}: {_allowed(value)}")


def _steps(value: object) -> Iterator[_Step]:
    if isinstance(value, dict):
        return ((f".{key}", item) for key, item in value.items())
    assert isinstance(value, list)
    return ((f"[{number}]", item) for number, item in enumerate(value))


def _field(names: list[str], name: str) -> str:
    return "".join([*names, name]).lstrip(".") or "file"


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > _MOST_SHOWN_BITS:  # from hexadecimal digits: no text, no limit
        return f"{'-' * (value < 0)}1e{int(value.bit_length() * math.log10(2.0))}"
    digits = str(value).lstrip("-")
    return f"{value:g}" if isinstance(value, float) else f"{'-' * (str(value) != digits)}{digits[0]}e{len(digits) - 1}"


def _allowed(value: object) -> str:
    return "must be finite" if isinstance(value, float) and not math.isfinite(value) else "must be within 1e36"
