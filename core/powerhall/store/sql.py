"""Queries as SQL over the tables of the SQLite store: `NAME` (series, time_ms, fields) and `NAME_series` (id, tags).

The series table is small and comes first in every join, so that a condition on tags costs one range scan per series
that it lets through, however many points the store holds.
"""

# ruff: noqa: S608 - names come from the schema, checked when a Query is built; values are bound or quoted

from dataclasses import dataclass

from powerhall.runtime.errors import Rejected
from powerhall.store.query import Query, Select, TagValue, Variable

__all__ = ["Statement", "render_sql"]

_FUNCTIONS = {
    "mean": "AVG({0})",
    "min": "MIN({0})",
    "max": "MAX({0})",
    "sum": "SUM({0})",
    "count": "CAST(NULLIF(COUNT({0}), 0) AS REAL)",
    "spread": "(MAX({0}) - MIN({0}))",
    "first": "value_at_first({0}, t)",
    "last": "value_at_last({0}, t)",
}
Parameters = list[float | int | str]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text with its parameters; its columns are the time in ms, the group's tags, then the query's columns."""

    text: str
    parameters: Parameters


def render_sql(query: Query, start_ms: int, end_ms: int) -> Statement:
    """Render over start_ms <= time < end_ms; every variable must be bound."""
    if query.variables():
        raise Rejected.field("query", "variables", sorted(query.variables()), "must be bound before it is run")
    text, parameters = _render(query, start_ms, end_ms)
    order = ", ".join([*_quote(query.group_by), "t DESC" if query.order == "desc" else "t"])
    return Statement(f"{text} ORDER BY {order}", parameters)


def _render(query: Query, start_ms: int, end_ms: int) -> tuple[str, Parameters]:
    source, parameters = _inner(query, start_ms, end_ms) if query.inner else _stored(query, start_ms, end_ms)
    columns = [f"{_column(entry)} AS {_quoted(entry.name)}" for entry in query.select]
    tags = _quote(query.group_by)
    time, groups = _time(query, start_ms)
    text = f"SELECT {', '.join([f'{time} AS t', *tags, *columns])} FROM ({source})"
    if query.aggregated:
        grouped = [*tags, *groups]
        text += f" GROUP BY {', '.join(grouped)}" if grouped else ""
    names = _quote(tuple(entry.name for entry in query.select))
    text = f"SELECT * FROM ({text}) WHERE ({' OR '.join(f'{name} IS NOT NULL' for name in names)})"
    if query.limit is None:
        return text, parameters
    partition = f"PARTITION BY {', '.join(tags)} " if tags else ""
    ranked = f"SELECT *, ROW_NUMBER() OVER ({partition}ORDER BY t {query.order}) AS rank_ FROM ({text})"
    return f"SELECT {', '.join(['t', *tags, *names])} FROM ({ranked}) WHERE rank_ <= {query.limit}", parameters


def _time(query: Query, start_ms: int) -> tuple[str, list[str]]:
    """Give the time column, and the expression to group by where there are buckets."""
    if not query.aggregated:
        return "t", []
    if query.every_s is None:
        return str(start_ms), []
    every_ms = round(query.every_s * 1000)
    return f"t - t % {every_ms}", [f"t - t % {every_ms}"]


def _inner(query: Query, start_ms: int, end_ms: int) -> tuple[str, Parameters]:
    assert query.inner is not None
    text, parameters = _render(query.inner, start_ms, end_ms)
    conditions, more = _conditions(query, "", "")
    return f"SELECT * FROM ({text}){_where(conditions)}", parameters + more


def _stored(query: Query, start_ms: int, end_ms: int) -> tuple[str, Parameters]:
    fields = dict.fromkeys(name for entry in query.select for name in (entry.field, entry.per) if name)
    table, series = _quoted(query.measurement), _quoted(f"{query.measurement}_series")
    columns = [f"s.{tag} AS {tag}" for tag in _quote(query.group_by)]
    columns += [f"d.{name} AS {name}" for name in _quote(tuple(fields))]
    conditions, parameters = _conditions(query, "s.", "d.")
    text = f"SELECT d.time_ms AS t, {', '.join(columns)} FROM {series} s CROSS JOIN {table} d ON d.series = s.id"
    if query.limit is None or query.aggregated:
        return text + _where(["d.time_ms >= ?", "d.time_ms < ?", *conditions]), [start_ms, end_ms, *parameters]
    # Only the first points of each series can be among the first of its group: read no more than those.
    inside = [f"({' OR '.join(f'{name} IS NOT NULL' for name in _quote(tuple(fields)))})"]
    filters, values = _filters(query, "")
    newest = f"SELECT time_ms FROM {table}"
    newest += _where(["series = s.id", "time_ms >= ?", "time_ms < ?", *inside, *filters])
    newest += f" ORDER BY time_ms {query.order} LIMIT {query.limit}"
    tag_conditions, tag_values = _tags(query, "s.")
    return text + _where([f"d.time_ms IN ({newest})", *tag_conditions]), [start_ms, end_ms, *values, *tag_values]


def _conditions(query: Query, tag_prefix: str, field_prefix: str) -> tuple[list[str], Parameters]:
    tags, tag_values = _tags(query, tag_prefix)
    filters, values = _filters(query, field_prefix)
    return tags + filters, tag_values + values


def _tags(query: Query, prefix: str) -> tuple[list[str], Parameters]:
    conditions, parameters = [], Parameters()
    for tag, value in query.where.items():
        values = _values(tag, value)
        conditions.append(f"{prefix}{_quoted(tag)} IN ({', '.join('?' * len(values))})")
        parameters.extend(values)
    return conditions, parameters


def _values(tag: str, value: TagValue) -> tuple[str, ...]:
    if isinstance(value, Variable) or value == ():
        raise Rejected.field("query", tag, value, "must hold at least one value")
    return (value,) if isinstance(value, str) else value


def _filters(query: Query, prefix: str) -> tuple[list[str], Parameters]:
    conditions, parameters = [], Parameters()
    for entry in query.filters:
        assert not isinstance(entry.value, Variable)
        conditions.append(f"{prefix}{_quoted(entry.field)} {entry.operator} ?")
        parameters.append(entry.value)
    return conditions, parameters


def _column(entry: Select) -> str:
    text = _call(entry.field, entry.aggregate)
    if entry.per:
        divisor = _call(entry.per, entry.aggregate)
        text = f"CASE WHEN {divisor} = 0 THEN 0.0 ELSE {text} / {divisor} END"  # InfluxDB 1 and 2 answer 0
    return text if entry.scale == 1.0 else f"({text}) * {entry.scale!r}"


def _call(name: str, aggregate: str) -> str:
    return _FUNCTIONS[aggregate].format(_quoted(name)) if aggregate else _quoted(name)


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _quoted(name: str) -> str:
    return f'"{name}"'


def _quote(names: tuple[str, ...]) -> list[str]:
    return [_quoted(name) for name in names]
