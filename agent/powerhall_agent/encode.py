"""Line protocol by precomputed prefixes: measurement and tags are escaped once, then only numbers are formatted."""

import math
from collections.abc import Mapping, Sequence

from powerhall.line import escape_tag, escape_text
from powerhall.schema import measurement

__all__ = ["Fields", "Record", "Series"]

Fields = Mapping[str, float | str]


class Series:
    """One time series: encodes points of always the same measurement and tags.

    A field that the schema does not have, or text where the schema has a number, raises ValueError at the first point
    that carries it. Values that are NaN or infinite are left out; a point without values encodes to nothing.
    """

    __slots__ = ("_formats", "_prefix", "_schema", "measurement", "tags")

    def __init__(self, name: str, tags: Mapping[str, str]) -> None:
        """Precompute the prefix; tags are put in the schema's order, empty ones left out."""
        self._schema = measurement(name)
        self.measurement = name
        self.tags = {key: tags[key] for key in self._schema.tags if tags.get(key)}
        text = "".join(f",{escape_tag(key)}={escape_tag(value)}" for key, value in self.tags.items())
        self._prefix = f"{escape_tag(name)}{text} ".replace("%", "%%")
        self._formats: dict[tuple[str, ...], str] = {}

    def encode(self, fields: Fields, time_ms: int) -> bytes:
        """Encode one point with a trailing newline."""
        keys = tuple(fields)
        layout = self._formats.get(keys)
        if layout is None:
            layout = self._formats[keys] = self._layout(fields)
        values: list[float | str] = []
        for value in fields.values():
            if value.__class__ is float:
                if not math.isfinite(value):
                    return self._encode_finite(fields, time_ms)
                values.append(value)
            elif isinstance(value, str):
                values.append(escape_text(value))
            else:
                values.append(float(value))
        if not values:
            return b""
        return (layout % (*values, time_ms)).encode()

    def _encode_finite(self, fields: Fields, time_ms: int) -> bytes:
        rest = {key: value for key, value in fields.items() if isinstance(value, str) or math.isfinite(value)}
        return self.encode(rest, time_ms)

    def _layout(self, fields: Fields) -> str:
        parts = []
        for key, value in fields.items():
            try:
                field = self._schema.field(key)
            except KeyError:
                raise ValueError(f"{self.measurement}: the schema has no field {key!r}") from None
            if field.is_text != isinstance(value, str):
                raise ValueError(
                    f"{self.measurement}.{key}: {value!r}: must be {'text' if field.is_text else 'a number'}"
                )
            parts.append(f"{escape_tag(key)}=%s" if field.is_text else f"{escape_tag(key)}=%r")
        return f"{self._prefix}{','.join(parts)} %d\n"


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
