"""InfluxDB line protocol: escaping, encoding of one point, and reading lines back.

Format: `measurement,tag=value field=1.5,text="x" 1700000000000` with a timestamp in milliseconds
(https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/).

Line protocol has no form for some characters of a name (line breaks, a backslash before a separator or the end),
and the generations of InfluxDB differ on others (tab, NUL, two backslashes). `stored_name` writes these as `%0A`,
`%0D`, `%09`, `%00` and `%5C`, and the sign itself as `%25` where it would be misread; `real_name` gives them back.
Names without such characters are stored as they are. Texts keep all but line breaks, which become spaces.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from powerhall.runtime.errors import Rejected

__all__ = ["Point", "encode", "escape_tag", "escape_text", "parse_line", "parse_lines", "real_name", "stored_name"]


@dataclass(frozen=True, slots=True)
class Point:
    """One point: measurement, tags, fields (floats or text) and its time in milliseconds since the epoch."""

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, float | str]
    time_ms: int = field(default=0)


_CODED = re.compile(r"[\n\r\t\0]|%(?=0A|0D|09|00|5C|25)|\\(?=[\\,= \"]|\Z)")
_CODES = re.compile(r"%(0A|0D|09|00|5C|25)")


def stored_name(text: str) -> str:
    """Return a name as it is stored: characters that line protocol cannot carry are coded."""
    if text.isalnum():
        return text
    return _CODED.sub(lambda found: f"%{ord(found[0]):02X}", text.encode("utf-8", "replace").decode())


def real_name(stored: str) -> str:
    """Return the name that was stored."""
    return _CODES.sub(lambda found: chr(int(found[1], 16)), stored) if "%" in stored else stored


def escape_tag(text: str) -> str:
    """Code and escape a measurement, tag key, tag value or field key."""
    text = stored_name(text)
    return text.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


def escape_text(text: str) -> str:
    """Escape and quote a text field; newlines become spaces."""
    text = text.replace("\n", " ").replace("\r", " ").encode("utf-8", "replace").decode()
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


_MOST_TIME_CHARS = 20
_MOST_NUMBER_CHARS = 400
# Possessive quantifiers keep long text fields linear and broken lines from backtracking. As in InfluxDB, a separator is
# escaped when a backslash stands before it; any other backslash is itself.
_NAME = r"(?:[^,= \\]++|\\[,= ]|\\)++"
_QUOTED = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TAG = re.compile(rf",({_NAME})=({_NAME})")
_FIELD = re.compile(rf'({_NAME})=({_QUOTED}|[^,= \\"]++)(?:,(?=.)|$)')
_LINE = re.compile(
    r"((?:[^, \\]++|\\[,= ]|\\)++)"  # measurement
    rf"((?:,{_NAME}={_NAME})*+)"  # tags
    rf' ((?:[^ "\\]++|\\.|{_QUOTED})++)'  # fields
    r" (-?[0-9]{1,19}+)"  # time
)


def _unescape(text: str) -> str:
    return real_name(re.sub(r"\\([,= ])", r"\1", text) if "\\" in text else text)


def _value(text: str, *, integers: bool) -> float | str:
    if text.startswith('"'):
        if "\\" not in text:
            return text[1:-1]
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if len(text) > _MOST_NUMBER_CHARS or "_" in text:
        raise ValueError(f"a number must be digits, at most {_MOST_NUMBER_CHARS} characters")
    value = float(text[:-1] if integers and text[-1] in "iu" else text)
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


def parse_lines(data: bytes) -> Iterator[Point]:
    """Read line protocol with millisecond timestamps; a malformed line raises Rejected with its number."""
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        yield _plain(line) or parse_line(line, f"line protocol: line {number}")


def _plain(line: str) -> Point | None:
    """Read a line without escapes and text, the usual case, an order of magnitude faster; None for any other."""
    if "\\" in line or '"' in line or "%" in line:
        return None
    try:
        head, values, time_ms = line.split(" ")
        measurement, *tags = head.split(",")
        pairs = dict(pair.split("=") for pair in values.split(","))
        labels = dict(tag.split("=") for tag in tags)
        if not (measurement and all(labels) and all(labels.values()) and all(pairs)):
            return None
        fields = {name: float(text[:-1] if text[-1] in "iu" else text) for name, text in pairs.items()}
        if len(time_ms) > _MOST_TIME_CHARS or not all(map(math.isfinite, fields.values())):
            return None
        return Point(measurement, labels, fields, int(time_ms))
    except (ValueError, IndexError):
        return None  # malformed: the full reader reports where


def parse_line(line: str, where: str, *, integers: bool = True) -> Point:
    """Read one line; `where` begins the error of a malformed one; `integers`: numbers such as `1i` are allowed."""
    found = _LINE.fullmatch(line)
    fields = found and _fields(found[3])
    if found is None or not fields:
        raise Rejected(f"{where}: {line[:80]!r}: must be 'measurement,tag=value field=value time_ms'")
    try:
        values = {name: _value(text, integers=integers) for name, text in fields.items()}
    except ValueError as error:
        raise Rejected(f"{where}: {line[:80]!r}: {error}") from None
    tags = {_unescape(name): _unescape(text) for name, text in _TAG.findall(found[2])}
    return Point(_unescape(found[1]), tags, values, int(found[4]))


def _fields(text: str) -> dict[str, str] | None:
    """Split `a=1,b="x"`, values still escaped; None when something in between is no pair."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        pair = _FIELD.match(text, at)
        if pair is None:
            return None
        found[_unescape(pair[1])] = pair[2]
        at = pair.end()
    return found
