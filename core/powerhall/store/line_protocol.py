"""InfluxDB line protocol: escaping, encoding of one point, and reading lines back.

Format: `measurement,tag=value field=1.5,text="x" 1700000000000` with a timestamp in milliseconds
(https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from powerhall.runtime.errors import Rejected

__all__ = ["Point", "encode", "escape_tag", "escape_text", "parse_lines"]


@dataclass(frozen=True, slots=True)
class Point:
    """One point: measurement, tags, fields (floats or text) and its time in milliseconds since the epoch."""

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, float | str]
    time_ms: int = field(default=0)


def escape_tag(text: str) -> str:
    """Escape a measurement, tag key, tag value or field key; newlines become spaces."""
    text = text.replace("\n", " ").replace("\r", " ").rstrip("\\")
    return text.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def escape_text(text: str) -> str:
    """Escape and quote a text field; newlines become spaces."""
    text = text.replace("\n", " ").replace("\r", " ")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def encode(point: Point) -> bytes:
    """Encode one point with a trailing newline; fields that are NaN or infinite are left out.

    Empty tag values are left out too. A point without a field that can be written gives `b""`.
    """
    parts = [
        f"{escape_tag(k)}={escape_text(v) if isinstance(v, str) else repr(float(v))}"
        for k, v in point.fields.items()
        if isinstance(v, str) or math.isfinite(v)
    ]
    if not parts:
        return b""
    tags = "".join(f",{escape_tag(k)}={escape_tag(v)}" for k, v in point.tags.items() if v)
    return f"{escape_tag(point.measurement)}{tags} {','.join(parts)} {point.time_ms}\n".encode()


# Possessive quantifiers keep long text fields linear and broken lines from backtracking.
_QUOTED = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_PAIR = re.compile(rf'((?:[^,= \\]++|\\.)++)=({_QUOTED}|(?:[^, \\"]++|\\.)++)(?:,|$)')
_LINE = re.compile(
    r"((?:[^, \\]++|\\.)++)"  # measurement
    r"((?:,(?:[^,= \\]++|\\.)++=(?:[^, \\]++|\\.)++)*+)"  # tags
    rf' ((?:[^ "\\]++|\\.|{_QUOTED})++)'  # fields
    r" (-?\d++)"  # time
)


def _unescape(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text) if "\\" in text else text


def _value(text: str) -> float | str:
    if text.startswith('"'):
        if "\\" not in text:
            return text[1:-1]
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    return float(text[:-1] if text[-1] in "iu" else text)


def parse_lines(data: bytes) -> Iterator[Point]:
    """Read line protocol with millisecond timestamps; a malformed line raises Rejected with its number."""
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        yield _plain(line) or _escaped(number, line)


def _plain(line: str) -> Point | None:
    """Read a line without escapes and text, the usual case, an order of magnitude faster; None for any other."""
    if "\\" in line or '"' in line:
        return None
    try:
        head, values, time_ms = line.split(" ")
        measurement, *tags = head.split(",")
        pairs = dict(pair.split("=") for pair in values.split(","))
        labels = dict(tag.split("=") for tag in tags)
        if not (measurement and all(labels) and all(labels.values()) and all(pairs)):
            return None
        return Point(
            measurement,
            labels,
            {name: float(text[:-1] if text[-1] in "iu" else text) for name, text in pairs.items()},
            int(time_ms),
        )
    except (ValueError, IndexError):
        return None  # malformed: the full reader reports where


def _escaped(number: int, line: str) -> Point:
    found = _LINE.fullmatch(line)
    tags = found and _pairs(found[2].lstrip(","))
    fields = found and _pairs(found[3])
    if found is None or tags is None or not fields:
        raise Rejected(f"line protocol: line {number}: {line[:80]!r}: must be 'measurement,tags fields time_ms'")
    try:
        values = {name: _value(text) for name, text in fields.items()}
    except ValueError as error:
        raise Rejected(f"line protocol: line {number}: {line[:80]!r}: {error}") from None
    plain = {name: _unescape(text) for name, text in tags.items()}
    return Point(_unescape(found[1]), plain, values, int(found[4]))


def _pairs(text: str) -> dict[str, str] | None:
    """Split `a=1,b=2`, values still escaped; None when something in between is no pair."""
    found: dict[str, str] = {}
    at, value_end = 0, 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return None
        found[_unescape(pair[1])] = pair[2]
        at, value_end = pair.end(), pair.end(2)
    return None if at > value_end else found  # a separator without a pair behind it
