"""InfluxDB 1, 2 and 3 as a store: writes through influxdb-client, reads by InfluxQL over /query with Basic auth.

Only features that the three generations share are used. A version 1 server without a v2 endpoint (before 1.8) is
written to by /write; the first write detects it. Secret files are read again at every call, so that a token can be
rotated.
"""

# ruff: noqa: S608 - names come from the schema, checked when a Query is built; values are bound or quoted

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.decode.numbers_in import whole
from powerhall.runtime.errors import Rejected
from powerhall.store.base import StoreKind
from powerhall.store.classes import retention_of, split_lines
from powerhall.store.documents import DOCUMENT, join_parts, split_document
from powerhall.store.influxdb.address import OPTIONS, InfluxAddress, parse_influx_url
from powerhall.store.influxdb.http import InfluxHttp
from powerhall.store.influxdb.influxql import identifier, literal, render_influxql, tag_literal
from powerhall.store.influxdb.writer import MOST_ANSWER_BYTES
from powerhall.store.line_protocol import real_name
from powerhall.store.query import Query, Row
from powerhall.store.schema import RETENTION_DAYS, Retention

__all__ = ["KIND", "InfluxStore"]

_DOCUMENT_TRIES = 3
"""How many of the newest documents are looked at before the search for a complete one ends."""
_RECENT_S = 2 * 86400.0
"""InfluxDB 3 Core refuses to read more than about three days at once."""


class _Series(msgspec.Struct):
    """One series of an InfluxQL answer."""

    columns: list[str]
    values: list[list[float | str | bool | None]] = []
    tags: dict[str, str] = {}


class _Result(msgspec.Struct):
    """The answer to one statement."""

    series: list[_Series] = []
    error: str = ""


class _Answer(msgspec.Struct):
    """The answer of /query."""

    results: list[_Result] = []
    error: str = ""


class InfluxStore:
    """A store in one bucket of an InfluxDB server, or in one per class of retention; safe with several threads."""

    def __init__(self, address: InfluxAddress) -> None:
        self.address = address
        self._http = InfluxHttp(address)
        self._by_class: dict[Retention, InfluxHttp] = dict.fromkeys(RETENTION_DAYS, self._http)
        if address.by_class:
            self._by_class |= {name: InfluxHttp(address.of_class(name)) for name in RETENTION_DAYS if name != "fine"}

    def write(self, lines: bytes) -> None:
        """Write line protocol with millisecond timestamps, each class of retention in a request of its own."""
        if not lines.strip():
            return
        if not self.address.by_class:
            self._http.write(lines)
            return
        for retention, part in split_lines(lines).items():
            self._by_class[retention].write(part)

    def query(self, query: Query, start_s: float, end_s: float) -> list[Row]:
        """Answer a query over start_s <= time < end_s, ordered by group and time."""
        start_ms = round(start_s * 1000)
        http = self._by_class[retention_of(query.measurement)]
        found = self._select(render_influxql(query, start_ms, round(end_s * 1000)), http)
        whole_range_ms = start_ms if query.aggregated and query.every_s is None else None
        names = [entry.name for entry in query.select]
        with self._asked_for():
            rows = [row for series in found for row in _rows(series, names, query.group_by, whole_range_ms)]
        sign = -1 if query.order == "desc" else 1
        rows.sort(key=lambda row: (*(row.tags[tag] for tag in query.group_by), sign * row.time_s))
        return rows

    def put_document(self, kind: str, key: str, time_s: float, body: bytes) -> None:
        """Keep a document under its kind and key as of `time_s`, in one request."""
        self._by_class[DOCUMENT.retention].write(split_document(kind, key, round(time_s * 1000), body))

    def latest_document(self, kind: str, key: str | None = None) -> bytes | None:
        """Return the newest complete document of this kind and key, or of any key; None where there is none."""
        where = [f'"kind" = {tag_literal(kind)}', *([] if key is None else [f'"key" = {tag_literal(key)}'])]
        if self.address.version == 3:
            now_s = time.time()
            where.append(f"time > {round((now_s - _RECENT_S) * 1000)}ms")
        text = f'SELECT "digest", "parts", "key" FROM {identifier(DOCUMENT.name)}'
        text += f" WHERE {' AND '.join(where)} AND \"part\" = '0' ORDER BY time DESC LIMIT {_DOCUMENT_TRIES}"
        for series in self._select(text, self._by_class[DOCUMENT.retention]):
            with self._asked_for():
                found = [(_int(time_ms), str(digest), str(tag or "")) for time_ms, digest, _, tag in series.values]
            for at_ms, digest, tag in found:
                body = self._document([*where[:1], f'"key" = {literal(tag)}', f"time = {at_ms}ms"], digest)
                if body is not None:
                    return body
        return None

    def close(self) -> None:
        """Close the connections."""
        for http in self._by_class.values():
            http.close()

    def server_time_s(self) -> float | None:
        """Return the server's clock in s since the epoch, to the second; None where it does not tell."""
        return self._http.date_s()

    def names(self, statement: str) -> list[str]:
        """Return the first column of a SHOW statement, such as SHOW DATABASES."""
        with self._asked_for():
            return [str(line[0]) for series in self._select(statement) for line in series.values]

    def _document(self, where: list[str], digest: str) -> bytes | None:
        where = [*where, f'"digest" = {literal(digest)}']  # parts of an older document of this very time have another
        text = f'SELECT "body", "part" FROM {identifier(DOCUMENT.name)} WHERE {" AND ".join(where)}'
        found = self._select(text, self._by_class[DOCUMENT.retention])
        with self._asked_for():
            parts = {whole(str(line[2])): str(line[1]) for series in found for line in series.values}
        return join_parts([parts[number] for number in sorted(parts)], digest)

    @contextmanager
    def _asked_for(self) -> Iterator[None]:
        """Refuse an answer whose columns or values are not those that were asked for."""
        try:
            yield
        except (ValueError, LookupError, OverflowError):
            raise Rejected(f"{self.address.name}: the answer has other columns than were asked for") from None

    def _select(self, statement: str, http: InfluxHttp | None = None) -> list[_Series]:
        http = http or self._http
        body = http.query(statement)
        answer = decode_json(body, _Answer, f"{self.address.name}: answer is not InfluxQL's JSON", MOST_ANSWER_BYTES)
        for error_text in (answer.error, *(result.error for result in answer.results)):
            if error_text:
                raise http.refusal(error_text)
        return [series for result in answer.results for series in result.series]


def _open(url: str) -> InfluxStore:
    return InfluxStore(parse_influx_url(url))


def _rows(series: _Series, names: Sequence[str], tags: Sequence[str], whole_range_ms: int | None) -> list[Row]:
    at = {name: series.columns.index(name) for name in names}
    group = {tag: real_name(series.tags.get(tag, "") or "") for tag in tags}
    rows = []
    for line in series.values:
        values = {name: _value(line[index]) for name, index in at.items()}
        if any(value is not None for value in values.values()):
            time_ms = _int(line[0]) if whole_range_ms is None else whole_range_ms
            rows.append(Row(time_ms / 1000, group, values))
    return rows


def _value(value: float | str | bool | None) -> float | str | None:
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _int(value: float | str | bool | None) -> int:
    if not isinstance(value, int | float):
        raise ValueError("must be a time")  # noqa: TRY004 - as for any other value
    return int(value)


KIND = StoreKind("influxdb://", "influxdb://HOST:PORT/BUCKET?version=1|2|3&token_file=FILE", OPTIONS, _open)
