"""Dashboards as Grafana's JSON, through Grafana's own foundation SDK."""

# ruff: noqa: S608 - names come from the schema

import json
from typing import Any

from powerhall.store.influxdb.influxql import identifier
from powerhall_dashboards.boards.parts import JOBS_SINCE_S, MARKED
from powerhall_dashboards.grafana.hall_sources import needs_hall, with_hall_sources
from powerhall_dashboards.grafana.panels import build_panel
from powerhall_dashboards.grafana.query import DATASOURCE, AnnotationTarget, policy_of
from powerhall_dashboards.grafana.sdk import JSONEncoder, dashboard, make
from powerhall_dashboards.model import GRID, Board, Choice

__all__ = ["TAG", "board_json", "choice_query", "panel_numbers"]

TAG = "powerhall"
"""Every dashboard carries this tag; the links between them find each other by it."""


def board_json(board: Board, *, by_class: bool = False, by_hall: bool = False) -> str:
    """Return the dashboard's JSON text, the same for the same board.

    With `by_class` each class of retention has a bucket of its own, with `by_hall` each hall a store.
    """
    made = (
        make.Dashboard(board.title)
        .uid(board.uid)
        .description(board.question)
        .tags([TAG])
        .timezone("browser")
        .refresh("30s")
        .time(f"now-{board.hours}h", "now")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(_links())
        .with_variable(
            make.DatasourceVariable("datasource").label("Data source").type("influxdb").regex("").multi(False)
        )
    )
    for choice in board.choices:
        made.with_variable(_variable(choice, {other.name: other for other in board.choices}, by_class=by_class))
    for name, kinds, colour in MARKED if board.annotations else ():
        made.annotation(_annotation(name, kinds, colour, by_class=by_class))
    _place(made, board, by_class=by_class)
    data = json.loads(JSONEncoder(sort_keys=True).encode(made.build()))
    hall = needs_hall(board) if by_hall else None
    if hall is not None:
        variable = _variable(hall, {choice.name: choice for choice in board.choices}, by_class=by_class)
        with_hall_sources(data, board, json.loads(JSONEncoder(sort_keys=True).encode(variable.build())))
    return json.dumps(_clean(data), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _links() -> make.DashboardLink:
    return (
        make.DashboardLink("Powerhall")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def _variable(choice: Choice, others: dict[str, Choice], *, by_class: bool) -> make.QueryVariable:
    query = choice_query(choice, others, by_class=by_class)
    made = (
        make.QueryVariable(choice.name)
        .label(choice.name.capitalize())
        .query(query)
        .datasource(DATASOURCE)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NATURAL_ASC)
        .multi(choice.several)
        .include_all(choice.several)
    )
    if choice.newest:
        made.hide(dashboard.VariableHide.HIDE_VARIABLE)
    return made.all_value(".*") if choice.several else made


def choice_query(choice: Choice, others: dict[str, Choice], *, by_class: bool = False) -> str:
    """Return the InfluxQL that lists the values to choose from."""
    policy = policy_of(choice.measurement, by_class=by_class)
    source = ".".join(identifier(name) for name in (policy, choice.measurement) if name)
    tags = [name for name in choice.within if not others[name].is_field]
    conditions = [f"{identifier(name)} =~ /^${name}$/" for name in tags]
    fields = [name for name in choice.within if others[name].is_field]
    if choice.is_field or fields:
        conditions += [f"{identifier(name)} = '${{{name}}}'" for name in fields]
        recent = f"time > now() - {JOBS_SINCE_S // 86_400}d"
        where = f"WHERE {' AND '.join([recent, *conditions])}"
        column = f"last({identifier(choice.field)})" if choice.newest else identifier(choice.name)
        if (
            fields
        ):  # a tag alone is read from a query beside a field; the outer one leaves that field out of the choices
            return f"SELECT {column} FROM (SELECT {column}, {identifier(fields[0])} FROM {source} {where})"
        return f"SELECT {column} FROM {source} {where}"
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SHOW TAG VALUES FROM {source} WITH KEY = {identifier(choice.name)}{where}"


def _annotation(name: str, kinds: tuple[str, ...], colour: str, *, by_class: bool) -> make.AnnotationQuery:
    return (
        make.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(colour)
        .target(AnnotationTarget(kinds, by_class=by_class))
    )


def panel_numbers(board: Board) -> dict[str, int]:
    """Return the number (`id`) of every panel by its title; rows are numbered too, the first of equal titles counts."""
    numbers: dict[str, int] = {}
    number = 0
    for _, panels in board.rows:
        number += 1
        for panel in panels:
            number += 1
            numbers.setdefault(panel.title, number)
    return numbers


def _place(made: make.Dashboard, board: Board, *, by_class: bool) -> None:
    """Put rows and panels on the grid, each row's panels side by side and wrapped."""
    top, number = 0, 1
    for title, panels in board.rows:
        row = make.Row(title).grid_pos(dashboard.GridPos(h=1, w=GRID, x=0, y=top)).id(number)
        made.with_row(row)
        number, top, left, tallest = number + 1, top + 1, 0, 0
        for panel in panels:
            if left + panel.width > GRID:
                top, left, tallest = top + tallest, 0, 0
            place = dashboard.GridPos(h=panel.height, w=panel.width, x=left, y=top)
            made.with_panel(build_panel(panel, by_class=by_class).grid_pos(place).id(number))
            number, left, tallest = number + 1, left + panel.width, max(tallest, panel.height)
        top += tallest


def _clean(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out the SDK's additions to the schema: intervals of other variables, and a menu of Grafana 12 alone."""
    for variable in data["templating"]["list"]:
        for name in ("auto", "auto_min", "auto_count"):
            variable.pop(name, None)
    marks = data["annotations"].setdefault("list", [])  # Grafana keeps the list also where it is empty
    for entry in (*marks, *data["links"]):
        entry.pop("placement", None)
    return data
