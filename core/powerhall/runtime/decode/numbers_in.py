"""Numbers that people and files give as text: of limited length, magnitude, and finite."""

import math
from collections.abc import Callable

from powerhall.runtime.decode.limits import MOST_QUANTITY

__all__ = ["count_of", "digits", "finite", "whole"]

_MOST_DIGITS = 20


def finite(text: str) -> float:
    """Read a finite number within 1.8e19; anything else raises ValueError."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError("must be a number") from None
    if not math.isfinite(value):
        raise ValueError("must be finite")
    if abs(value) > MOST_QUANTITY:
        raise ValueError("must be within 1.8e19")
    return value


def whole(text: str) -> int:
    """Read a whole number of at most 20 digits; anything else raises ValueError."""
    text = text.strip()
    digits = text.lstrip("+-")
    if not (digits.isascii() and digits.isdecimal() and len(text) - len(digits) <= 1):
        raise ValueError("must be a whole number")
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"must have at most {_MOST_DIGITS} digits")
    return int(text)


def digits(text: str) -> int | None:
    """Return the number that at most 20 digits 0 to 9 say; None for any other text.

    `str.isdigit` takes "²", and `int` takes no text of 5,000 digits: neither says whether a text is a number.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def count_of(least: int, most: int) -> Callable[[str], int]:
    """Return the `type` of an argparse option that takes a whole number in a range."""

    def count(text: str) -> int:
        import argparse

        try:
            value = whole(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text[:40]!r}: {error}") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]!r}: must be a whole number from {least:,} to {most:,}")
        return value

    return count
