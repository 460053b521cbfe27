"""Limits of what is read from outside, sized for 44,000 nodes, 350,000 GPUs, 100,000 jobs and a year by the minute.

The environment variable POWERHALL_INPUT_FACTOR (1 to 1000) multiplies every limit of bytes and counts; depth, numbers
and the ratio of expansion stay.
"""

import os
from typing import Final

from powerhall.runtime.errors import ConfigError

__all__ = [
    "FACTOR_VARIABLE",
    "MOST_COLUMNS",
    "MOST_COMMAND_BYTES",
    "MOST_DEPTH",
    "MOST_DOCUMENT_BYTES",
    "MOST_EXPANSION",
    "MOST_FIELD_CHARS",
    "MOST_JSON_BYTES",
    "MOST_NAMES",
    "MOST_NUMBER",
    "MOST_QUANTITY",
    "MOST_SECRET_BYTES",
    "MOST_TEXT_BYTES",
    "MOST_TOML_BYTES",
    "enlarged",
    "size_text",
]

_MIB: Final = 1 << 20

MOST_TOML_BYTES: Final = 8 * _MIB
"""A settings or site file; a site of 44,000 nodes, each by its name, has 2 MB."""
MOST_JSON_BYTES: Final = 256 * _MIB
"""A JSON file or message of a known form: plans, queues, ledgers."""
MOST_DOCUMENT_BYTES: Final = 16 * _MIB
"""JSON of unknown form: answers of devices and servers."""
MOST_TEXT_BYTES: Final = 512 * _MIB
"""CSV, SWF and other text after expansion; a year by the minute has 16 MB a series."""
MOST_COMMAND_BYTES: Final = 1024 * _MIB
"""Output of a command; `squeue --json` of 100,000 jobs has some 600 MB."""
MOST_SECRET_BYTES: Final = 64 * 1024
MOST_EXPANSION: Final = 200
"""Times its size that compressed data may expand to, beyond 16 MiB; tables of measurements reach 40."""
MOST_DEPTH: Final = 64
"""Nesting of JSON and TOML of unknown form, and parts of a dotted key."""
MOST_NUMBER: Final = 1e36
"""Magnitude of a number in JSON and TOML: beyond every quantity, and products of several stay finite."""
MOST_QUANTITY: Final = float(2**64)
"""Magnitude of a number in tables, options and quantities with units."""
MOST_NAMES: Final = 1_000_000
"""Names of one host list."""
MOST_COLUMNS: Final = 1_000
MOST_FIELD_CHARS: Final = 131_072
"""Characters of one cell of a table."""

FACTOR_VARIABLE: Final = "POWERHALL_INPUT_FACTOR"
_MOST_FACTOR: Final = 1000.0


def enlarged(limit: int) -> int:
    """Return a limit of bytes or of a count times the factor of the environment; a wrong factor raises ConfigError."""
    text = os.environ.get(FACTOR_VARIABLE)
    if not text:
        return limit
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1.0 <= factor <= _MOST_FACTOR:
        raise ConfigError.field("environment", FACTOR_VARIABLE, text, f"must be a number from 1 to {_MOST_FACTOR:g}")
    return int(limit * factor)


def size_text(size: int) -> str:
    """Write a number of bytes as people do: `size_text(8 << 20) == '8 MiB'`."""
    for unit, bytes_ in (("GiB", 1 << 30), ("MiB", _MIB), ("KiB", 1024)):
        if size >= bytes_:
            return f"{size / bytes_:.4g} {unit}"
    return f"{size} bytes"
