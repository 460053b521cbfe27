"""Queries as InfluxQL, in the subset that InfluxDB 1.6 to 3 answer alike (no INTO, no SLIMIT, no Flux)."""

# ruff: noqa: S608 - names come from the schema, checked when a Query is built; values are bound or quoted

from decimal import Decimal

from powerhall.runtime.errors import Rejected
from powerhall.store.line_protocol import stored_name
from powerhall.store.query import Filter, Query, Select, TagValue, Variable

__all__ = ["identifier", "literal", "render_grafana", "render_influxql", "tag_literal"]


def render_influxql(query: Query, start_ms: int, end_ms: int) -> str:
    """Render for `/query` over start_ms <= time < end_ms; every variable must be bound."""
    if query.variables():
        raise Rejected.field("query", "variables", sorted(query.variables()), "must be bound before it is run")
    return _render(query, f"time >= {start_ms}ms AND time < {end_ms}ms", None)


def render_grafana(query: Query) -> str:
    """Render for a Grafana panel: its time range, its interval for buckets, and `$name` for variables."""
    return _render(query, "$timeFilter", "$__interval")


def _render(query: Query, time_filter: str, interval: str | None) -> str:
    columns = ", ".join(_column(entry) for entry in query.select)
    source = f"({_render(query.inner, time_filter, interval)})" if query.inner else identifier(query.measurement)
    conditions = [time_filter]
    conditions += [_tag_condition(tag, value) for tag, value in query.where.items()]
    conditions += [_field_condition(entry) for entry in query.filters]
    text = f"SELECT {columns} FROM {source} WHERE {' AND '.join(conditions)}"
    groups = [identifier(tag) for tag in query.group_by]
    if query.every_s is not None:
        groups.insert(0, f"time({interval or _duration(query.every_s)})")
    if groups:
        text += f" GROUP BY {', '.join(groups)}"
    if query.every_s is not None:
        text += " fill(none)"
    if query.order == "desc":
        text += " ORDER BY time DESC"
    return text if query.limit is None else f"{text} LIMIT {query.limit}"


def _column(entry: Select) -> str:
    text = _call(entry.field, entry.aggregate)
    if entry.per:
        text += f" / {_call(entry.per, entry.aggregate)}"
    if entry.scale != 1.0:
        text += f" * {_number(entry.scale)}"
    return text if text == identifier(entry.name) else f"{text} AS {identifier(entry.name)}"


def _call(name: str, aggregate: str) -> str:
    return f"{aggregate}({identifier(name)})" if aggregate else identifier(name)


def identifier(name: str) -> str:
    return f'"{name}"'


def literal(text: str) -> str:
    text = text.replace("\n", " ").replace("\r", " ").encode("utf-8", "replace").decode()
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def tag_literal(value: str) -> str:
    """Return a tag's value as it is stored, as a literal."""
    return literal(stored_name(value))


def _tag_condition(tag: str, value: TagValue) -> str:
    if isinstance(value, Variable):
        return f"{identifier(tag)} =~ /^${value.name}$/"
    values = (value,) if isinstance(value, str) else value
    if not values:
        raise Rejected.field("query", tag, values, "must hold at least one value")
    text = " OR ".join(f"{identifier(tag)} = {tag_literal(entry)}" for entry in values)
    return text if len(values) == 1 else f"({text})"


def _field_condition(entry: Filter) -> str:
    if isinstance(entry.value, Variable):
        return f"{identifier(entry.field)} {entry.operator} '${{{entry.value.name}}}'"
    operator = "<>" if entry.operator == "!=" else entry.operator
    value = literal(entry.value) if isinstance(entry.value, str) else _number(entry.value)
    return f"{identifier(entry.field)} {operator} {value}"


def _number(value: float) -> str:
    """Write a number without an exponent, which InfluxQL does not read."""
    return format(Decimal(repr(float(value))), "f")


def _duration(every_s: float) -> str:
    every_ms = round(every_s * 1000)
    return f"{every_ms}ms" if every_ms % 1000 else f"{every_ms // 1000}s"
