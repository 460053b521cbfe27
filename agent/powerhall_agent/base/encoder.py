"""Line protocol by precomputed prefixes: measurement and tags are escaped once, then only numbers are formatted."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from powerhall.store.line_protocol import escape_tag, escape_text
from powerhall.store.schema import measurement

__all__ = ["Fields", "Record", "Series"]

Fields = Mapping[str, float | str]


_NUMBERS = msgspec.json.Encoder()
_EQUALS = bytes.maketrans(b":", b"=")


class Series:
    """One time series: encodes points of one measurement with fixed tags.

    Numbers are encoded by msgspec as JSON, which is faster than formatting them one by one: without its
    quotes and braces, and with `=` for `:`, `{"a":1.5,"b":2}` is the field part of a line. A whole number has no
    fraction; line protocol reads it as a float.

    A field that the schema does not have, or text where the schema has a number, raises ValueError. Values that are NaN
    or infinite are left out; a point without values encodes to nothing.
    """

    __slots__ = ("_keys", "_last_text", "_prefix", "_schema", "_texts_of", "measurement", "tags")

    def __init__(self, name: str, tags: Mapping[str, str]) -> None:
        """Precompute the prefix; tags are put in the schema's order, empty ones left out."""
        self._schema = measurement(name)
        self.measurement = name
        self.tags = {key: tags[key] for key in self._schema.tags if tags.get(key)}
        text = "".join(f",{escape_tag(key)}={escape_tag(value)}" for key, value in self.tags.items())
        self._prefix = f"{escape_tag(name)}{text} ".encode()
        self._texts_of: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._last_text: dict[str, tuple[str, bytes]] = {}
        self._keys: dict[str, tuple[bool, str]] = {}

    def encode(self, fields: Fields, time_ms: int) -> bytes:
        """Encode one point with a trailing newline; texts come before numbers."""
        keys = tuple(fields)
        texts = self._texts_of.get(keys)
        if texts is None:
            texts = self._texts_of[keys] = tuple(key for key in keys if self._key(key)[0])
        numbers: Mapping[str, Any] = fields
        head = self._prefix
        if texts:
            numbers = dict(fields)
            for key in texts:
                head += self._text(key, numbers.pop(key)) + b","
        body = _NUMBERS.encode(numbers)
        line = body.translate(_EQUALS, b'{"}')
        # If exactly the two braces and the quotes of the keys were removed, all values are numbers; JSON writes null
        # for those that are not finite.
        if numbers and len(body) - len(line) == 2 * len(numbers) + 2 and b"null" not in line:
            return b"%b%b %d\n" % (head, line, time_ms)
        return self._encode_each(fields, time_ms)

    def _text(self, key: str, value: float | str) -> bytes:
        """Return `key="value"`; the last text of each key is cached, because most texts repeat."""
        known = self._last_text.get(key)
        if known is not None and known[0] == value:
            return known[1]
        if isinstance(value, str):
            part = f"{self._key(key)[1]}{escape_text(value)}".encode()
            self._last_text[key] = value, part
            return part
        raise ValueError(f"{self.measurement}.{key}: {value!r}: must be text")

    def _encode_each(self, fields: Fields, time_ms: int) -> bytes:
        """Encode field by field: text, and numbers of which some are not finite."""
        parts = []
        for key, value in fields.items():
            is_text, head = self._key(key)
            if is_text != isinstance(value, str):
                wanted = "text" if is_text else "a number"
                raise ValueError(f"{self.measurement}.{key}: {value!r}: must be {wanted}")
            if isinstance(value, str):
                parts.append(head + escape_text(value))
            elif math.isfinite(value):
                parts.append(f"{head}{value!r}")
        if not parts:
            return b""
        return b"%b%b %d\n" % (self._prefix, ",".join(parts).encode(), time_ms)

    def _key(self, key: str) -> tuple[bool, str]:
        """Return whether a field is text, and the start of its part of a line."""
        found = self._keys.get(key)
        if found is None:
            try:
                is_text = self._schema.field(key).is_text
            except KeyError:
                raise ValueError(f"{self.measurement}: the schema has no field {key!r}") from None
            found = self._keys[key] = is_text, f"{escape_tag(key)}="
        return found


class Record:
    """One point of a series, kept as values so that it can be shown as a table, a line or JSON."""

    __slots__ = ("fields", "series", "time_ms")

    def __init__(self, series: Series, fields: Fields, time_ms: int) -> None:
        """Keep the values; nothing is encoded yet."""
        self.series = series
        self.fields = fields
        self.time_ms = time_ms

    def line(self) -> bytes:
        """Encode as one line-protocol line with a trailing newline."""
        return self.series.encode(self.fields, self.time_ms)


def encode_all(records: Sequence[Record]) -> bytes:
    """Encode many records into one block of lines."""
    return b"".join(record.line() for record in records)
