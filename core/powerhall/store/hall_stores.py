"""A store for each hall and one for the site, asked as one: `halls:///FILE`.

The FILE is TOML: `site` is the URL of the site's store, the table `[halls]` has the URL of each hall's by its name.
Nodes write to their hall's store. Everything else is in the site's: roll-ups, plans, job queues, alarms and meters.
Parts are asked at the same time; a query over several gives the rows that one store with all points would give.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from powerhall.runtime.errors import ConfigError, PowerhallError
from powerhall.runtime.settings import read_toml
from powerhall.store.base import ServerClock, Store, StoreKind
from powerhall.store.line_protocol import Point, encode, parse_lines
from powerhall.store.query import Query, Row, Select, Variable
from powerhall.store.schema import MEASUREMENTS

__all__ = ["KEPT_BY_HALL", "KIND", "HallAddresses", "HallStores", "hall_addresses", "hall_source"]

T = TypeVar("T")

KEPT_BY_HALL = frozenset(
    {
        "gpu",
        "gpu_fast",
        "gpu_slow",
        "gpu_activity",
        "gpu_extra",
        "gpu_mig",
        "gpu_state",
        "gpu_identity",
        "node",
        "agent",
        "collector",
        "sensor",
        "job_interval",
        "job_progress",
        "lease",
        "lease_confirmation",
        "capper",
    }
)
"""Measurements that belong to a hall's store; `event` and `facility` are looked for in every store."""
_ANYWHERE = KEPT_BY_HALL | {"event", "facility"}
_ADDED: dict[str, Callable[[list[float]], float]] = {"sum": sum, "count": sum, "min": min, "max": max}
"""Aggregates of parts that add up to the aggregate of the whole."""
_MOST_PARALLEL = 32


class HallAddresses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The stores of a site with one for each hall."""

    site: str
    """URL of the site's store."""
    halls: dict[str, str]
    """URL of each hall's store, by the hall's name in the site file."""


def hall_source(hall: str) -> str:
    """Return the name of a hall's data source in Grafana."""
    return f"powerhall-{hall}"


def hall_addresses(url: str) -> HallAddresses:
    """Read the file of a `halls:///FILE` URL; what it must not hold raises Rejected."""
    path = unquote(url.removeprefix("halls:///"))
    if not path or path.startswith("?"):
        raise ConfigError(f"store URL: {url}: names no file; must be halls:///FILE")
    found = read_toml(path, HallAddresses)
    if not found.halls:
        raise ConfigError(f'{path}: halls: must name at least one hall, such as hall1 = "influxdb://..."')
    for name, one in {"site": found.site, **found.halls}.items():
        if one.startswith("halls:"):
            raise ConfigError.field(path, name, one, "must be one store's URL")
    return found


class HallStores:
    """The stores of a site's halls and its own, as one store; safe with several threads."""

    def __init__(self, site: Store, halls: Mapping[str, Store], scratch: Callable[[], Store]) -> None:
        self.site = site
        self.halls = dict(halls)
        self._scratch = scratch
        self._threads = ThreadPoolExecutor(min(_MOST_PARALLEL, len(self.halls) + 1), "halls")

    def write(self, lines: bytes) -> None:
        """Write each line to the store that keeps it; all are tried before the first error is raised."""
        parts: dict[int, tuple[Store, list[bytes]]] = {}
        for line in lines.splitlines(keepends=True):
            store = self._keeper(line)
            parts.setdefault(id(store), (store, []))[1].append(line)
        _all([self._threads.submit(store.write, b"".join(found)) for store, found in parts.values()])

    def query(self, query: Query, start_s: float, end_s: float) -> list[Row]:
        """Answer a query over start_s <= time < end_s, ordered by group and time; every store must answer."""
        parts = self._asked(query)
        return self._joined(query, start_s, end_s, parts, _all(self._ask(query, start_s, end_s, parts)))

    def query_answering(
        self, query: Query, start_s: float, end_s: float, tell: Callable[[str, PowerhallError], None]
    ) -> list[Row]:
        """Answer by the stores that answer, and tell of the others by hall ("" is the site); all silent raises."""
        parts = self._asked(query)
        names = {id(store): hall for hall, store in self.halls.items()}
        answers: list[list[Row]] = []
        heard: list[Store] = []
        errors: list[PowerhallError] = []
        for store, future in zip(parts, self._ask(query, start_s, end_s, parts), strict=True):
            try:
                answers.append(future.result())
                heard.append(store)
            except PowerhallError as error:
                tell(names.get(id(store), ""), error)
                errors.append(error)
        if not heard:
            raise errors[0]
        return self._joined(query, start_s, end_s, heard, answers)

    def put_document(self, kind: str, key: str, time_s: float, body: bytes) -> None:
        """Keep a document in the site's store."""
        self.site.put_document(kind, key, time_s, body)

    def latest_document(self, kind: str, key: str | None = None) -> bytes | None:
        """Return the newest complete document of the site's store."""
        return self.site.latest_document(kind, key)

    def server_time_s(self) -> float | None:
        """Return the clock of the site's server; None where it does not tell."""
        return self.site.server_time_s() if isinstance(self.site, ServerClock) else None

    def close(self) -> None:
        """Close them all."""
        self._threads.shutdown()
        for store in (self.site, *self.halls.values()):
            store.close()

    def _keeper(self, line: bytes) -> Store:
        """Return the store of a line; that of the site where no hall of this file is named."""
        name = line.split(b" ", 1)[0].split(b",", 1)[0].decode("utf-8", "replace")
        if name not in KEPT_BY_HALL:
            return self.site
        return self.halls.get(next(parse_lines(line)).tags.get("hall", ""), self.site)

    def _asked(self, query: Query) -> list[Store]:
        """Return the stores in which points of a query may be."""
        if query.measurement not in _ANYWHERE:
            return [self.site]
        while query.inner is not None:
            query = query.inner
        hall = query.where.get("hall")
        if hall is None or isinstance(hall, Variable):
            return [self.site, *self.halls.values()]
        named = (hall,) if isinstance(hall, str) else hall
        return [self.site, *(self.halls[name] for name in named if name in self.halls)]

    def _ask(self, query: Query, start_s: float, end_s: float, parts: Sequence[Store]) -> list[Future[list[Row]]]:
        return [self._threads.submit(store.query, query, start_s, end_s) for store in parts]

    def _joined(
        self, query: Query, start_s: float, end_s: float, parts: Sequence[Store], answers: Sequence[list[Row]]
    ) -> list[Row]:
        """Join the answers of parts; where they share a group whose aggregates do not add up, their points."""
        answers = [rows for rows in answers if rows]
        if len(answers) < 2:
            return answers[0] if answers else []
        rows = [row for found in answers for row in found]
        if query.aggregated and len({_key(query, row) for row in rows}) < len(rows):
            adds_up = all(entry.aggregate in _ADDED and not entry.per and entry.scale > 0.0 for entry in query.select)
            if query.inner is not None or not adds_up:  # a group of an inner query may lie in several parts
                return self._from_points(query, start_s, end_s, parts)
            rows = _added(query, rows)
        sign = -1 if query.order == "desc" else 1
        rows.sort(key=lambda row: (*(row.tags[tag] for tag in query.group_by), sign * row.time_s))
        return rows if query.limit is None else _limited(query, rows)

    def _from_points(self, query: Query, start_s: float, end_s: float, parts: Sequence[Store]) -> list[Row]:
        """Answer from the points of all parts in a store of this moment."""
        points = _points_of(query)
        with closing(self._scratch()) as scratch:
            for rows in _all(self._ask(points, start_s, end_s, parts)):
                lines = (Point(query.measurement, row.tags, _present(row), round(row.time_s * 1000)) for row in rows)
                scratch.write(b"".join(map(encode, lines)))
            return scratch.query(query, start_s, end_s)


def _points_of(query: Query) -> Query:
    """Return the query of the stored points that this one reads."""
    innermost = query
    while innermost.inner is not None:
        innermost = innermost.inner
    names = dict.fromkeys(name for entry in innermost.select for name in (entry.field, entry.per) if name)
    names |= dict.fromkeys(condition.field for condition in innermost.filters)
    tags = MEASUREMENTS[query.measurement].tags
    return replace(
        innermost, select=tuple(map(Select, names)), group_by=tags, every_s=None, order="asc", limit=None, inner=None
    )


def _present(row: Row) -> dict[str, float | str]:
    return {name: value for name, value in row.values.items() if value is not None}


def _key(query: Query, row: Row) -> tuple[str | float, ...]:
    return (*(row.tags[tag] for tag in query.group_by), row.time_s)


def _added(query: Query, rows: Sequence[Row]) -> list[Row]:
    """Add up the rows of one group and time, column by column."""
    groups: dict[tuple[str | float, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_key(query, row), []).append(row)
    found = []
    for same in groups.values():
        values: dict[str, float | str | None] = {}
        for entry in query.select:
            numbers = [number for row in same if (number := row.number(entry.name)) is not None]
            values[entry.name] = float(_ADDED[entry.aggregate](numbers)) if numbers else None
        found.append(Row(same[0].time_s, same[0].tags, values))
    return found


def _limited(query: Query, rows: Sequence[Row]) -> list[Row]:
    """Return the first rows of each group, as many as the query's limit."""
    taken: dict[tuple[str, ...], int] = {}
    found = []
    for row in rows:
        group = tuple(row.tags[tag] for tag in query.group_by)
        taken[group] = taken.get(group, 0) + 1
        if taken[group] <= (query.limit or 0):
            found.append(row)
    return found


def _all(futures: Sequence[Future[T]]) -> list[T]:
    """Wait for all; then return the results, or raise the first error."""
    for future in futures:
        future.exception()
    return [future.result() for future in futures]


def _join(url: str, opener: Callable[[str], Store], scratch: Callable[[], Store]) -> HallStores:
    addresses = hall_addresses(url)
    return HallStores(opener(addresses.site), {name: opener(one) for name, one in addresses.halls.items()}, scratch)


KIND = StoreKind("halls:///", "halls:///FILE", (), None, join=_join)
