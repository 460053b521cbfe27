"""One query language for dashboards, preview and optimizer; rendered to InfluxQL (influxql.py) and SQL (sql.py).

A query reads one measurement of the schema, or the rows of an inner query. With aggregates it gives one row per group,
or per group and time bucket of `every_s`; without aggregates it gives the stored points. Identifiers are checked
against the schema when the query is built, so that a misspelt field is an error and never an empty panel.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from powerhall.runtime.errors import Rejected
from powerhall.store.schema import MEASUREMENTS, Measurement

__all__ = ["AGGREGATES", "Filter", "Query", "Row", "Select", "TagValue", "Variable"]

AGGREGATES = ("mean", "min", "max", "sum", "first", "last", "count", "spread")
"""Functions that every supported store has, with equal results."""
_OPERATORS = ("=", "!=", ">", ">=", "<", "<=")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Variable:
    """A value that the reader of a dashboard chooses; `Query.bind` puts real values in its place."""

    name: str


TagValue = str | tuple[str, ...] | Variable


@dataclass(frozen=True, slots=True)
class Select:
    """One column: a field (or an inner query's column), its aggregate ("" for stored points) and its name.

    `per` divides by another field under the same aggregate (PUE is facility power per IT power); `scale` multiplies.
    """

    field: str
    aggregate: str = ""
    alias: str = ""
    per: str = ""
    scale: float = 1.0

    @property
    def name(self) -> str:
        """The column's name in the rows: the alias, or the field."""
        return self.alias or self.field


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on a field's value, such as `Filter("state", "=", "waiting")`."""

    field: str
    operator: str
    value: float | str | Variable


@dataclass(frozen=True, slots=True)
class Row:
    """One answer row: time in seconds since the epoch, the group's tags, and the columns; None where there is no value.

    The time is that of the point or the start of the bucket; the start of the asked range for a whole-range aggregate.
    """

    time_s: float
    tags: Mapping[str, str]
    values: Mapping[str, float | str | None]

    def number(self, name: str) -> float | None:
        """Return the column as a number; None where it is absent or text."""
        value = self.values.get(name)
        return value if isinstance(value, float) else None


@dataclass(frozen=True, slots=True)
class Query:
    """What to read; `order` and `limit` (per group, by time) are for stored points and bucketed rows."""

    measurement: str
    select: tuple[Select, ...]
    where: Mapping[str, TagValue] = field(default_factory=dict)
    group_by: tuple[str, ...] = ()
    every_s: float | None = None
    order: str = "asc"
    limit: int | None = None
    inner: "Query | None" = None
    filters: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that the schema does not have."""
        _check(self)

    @property
    def aggregated(self) -> bool:
        """Whether the columns are aggregates."""
        return bool(self.select[0].aggregate)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that conditions and groups may name."""
        return self.inner.group_by if self.inner else MEASUREMENTS[self.measurement].tags

    @property
    def source(self) -> Measurement:
        """The measurement at the bottom of the query."""
        return MEASUREMENTS[self.measurement]

    def variables(self) -> frozenset[str]:
        """Return the names of the variables in this query and its inner one."""
        found = {v.name for v in self.where.values() if isinstance(v, Variable)}
        found |= {f.value.name for f in self.filters if isinstance(f.value, Variable)}
        return frozenset(found | (self.inner.variables() if self.inner else frozenset()))

    def bind(self, chosen: Mapping[str, str | tuple[str, ...]]) -> "Query":
        """Put chosen values in the place of variables; a variable without a choice loses its condition."""
        where: dict[str, TagValue] = {}
        for tag, value in self.where.items():
            if not isinstance(value, Variable):
                where[tag] = value
            elif value.name in chosen:
                where[tag] = chosen[value.name]
        filters = []
        for entry in self.filters:
            if not isinstance(entry.value, Variable):
                filters.append(entry)
            elif entry.value.name in chosen:
                text = chosen[entry.value.name]
                filters.append(replace(entry, value=text if isinstance(text, str) else text[0]))
        inner = self.inner.bind(chosen) if self.inner else None
        return replace(self, where=where, filters=tuple(filters), inner=inner)

    def bucketed(self, every_s: float) -> "Query":
        """Return the query with every time bucket widened to at least `every_s`."""
        wide = None if self.every_s is None else max(self.every_s, every_s)
        return replace(self, every_s=wide, inner=self.inner.bucketed(every_s) if self.inner else None)


def _check(query: Query) -> None:
    if query.measurement not in MEASUREMENTS:
        raise Rejected.field("query", "measurement", query.measurement, f"must be one of {', '.join(MEASUREMENTS)}")
    if not query.select:
        raise Rejected.field("query", "select", (), "must name at least one column")
    source = f"query of {query.measurement}"
    columns = _columns(query)
    for entry in query.select:
        _one_of(source, "select", entry.field, columns)
        if entry.per:
            _one_of(source, "per", entry.per, columns)
        if not _NAME.fullmatch(entry.name):
            raise Rejected.field(source, "alias", entry.alias, "must be letters, digits and underscores")
        if entry.aggregate:
            _one_of(source, "aggregate", entry.aggregate, AGGREGATES)
    for tag in (*query.where, *query.group_by):
        _one_of(source, "tag", tag, query.tags)
    for condition in query.filters:
        _one_of(source, "filter", condition.field, columns)
        _one_of(source, "operator", condition.operator, _OPERATORS)
    _one_of(source, "order", query.order, ("asc", "desc"))
    _check_shape(query, source)


def _columns(query: Query) -> tuple[str, ...]:
    if query.inner:
        return tuple(entry.name for entry in query.inner.select)
    return tuple(entry.name for entry in query.source.fields)


def _one_of(source: str, what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise Rejected.field(source, what, value, f"must be one of {', '.join(allowed) or 'none'}")


def _check_shape(query: Query, source: str) -> None:
    aggregated = {bool(entry.aggregate) for entry in query.select}
    if len(aggregated) > 1:
        raise Rejected.field(source, "select", "aggregates and stored fields", "must not be mixed in one query")
    if query.every_s is not None and (query.every_s < 0.001 or not query.aggregated):
        raise Rejected.field(source, "every_s", query.every_s, "must be at least 0.001, with aggregates only")
    if query.limit is not None and (query.limit < 1 or (query.aggregated and query.every_s is None)):
        raise Rejected.field(source, "limit", query.limit, "must be at least 1, on stored points or bucketed rows")
    if query.inner and (query.inner.measurement != query.measurement or not query.aggregated):
        raise Rejected.field(source, "inner", query.inner.measurement, "must be the same measurement, aggregated again")
