"""Dashboards of a site with a store for each hall: what nodes write is read from the data source of the chosen hall.

Grafana puts the chosen hall into the pattern of a data source variable, so that choosing a hall chooses its store.
"""

from typing import Any

from powerhall.store import Query
from powerhall.store.hall_stores import KEPT_BY_HALL, hall_source
from powerhall_dashboards.boards.parts import THIS_HALL
from powerhall_dashboards.model import Board, Choice

__all__ = ["HALL_SOURCE", "needs_hall", "with_hall_sources"]

HALL_SOURCE = "hall_datasource"
"""Name of the variable that holds the data source of the chosen hall."""
_UID = f"${{{HALL_SOURCE}}}"


def needs_hall(board: Board) -> Choice | None:
    """Return the choice of one hall that a dashboard must have for what nodes write; None where it shows none of it."""
    shown = {_innermost(query) for panel in board.panels for query in panel.queries}
    shown |= {choice.measurement for choice in board.choices}
    return THIS_HALL if shown & KEPT_BY_HALL else None


def with_hall_sources(data: dict[str, Any], board: Board, hall: dict[str, Any]) -> None:
    """Let a dashboard's JSON read what nodes write from the store of the hall that the variable `hall` chooses."""
    variables = data["templating"]["list"]
    site = next(number for number, entry in enumerate(variables) if entry["name"] == "site")
    kept = [entry for entry in variables if entry["name"] != "hall"]
    data["templating"]["list"] = [*kept[: site + 1], hall, _source_variable(variables[0]), *kept[site + 1 :]]
    raw = {choice.name for choice in board.choices if choice.measurement in KEPT_BY_HALL}
    for entry in data["templating"]["list"]:
        if entry["name"] in raw:
            entry["datasource"] = {**entry["datasource"], "uid": _UID}
    drawn = [panel for panel in data["panels"] if panel["type"] != "row"]
    for made, panel in zip(drawn, board.panels, strict=True):
        names = [_innermost(query) for query in panel.queries]
        if set(names) <= KEPT_BY_HALL:
            made["datasource"] = {**made["datasource"], "uid": _UID}
        for target, name in zip(made["targets"], names, strict=True):
            if name in KEPT_BY_HALL:
                target["datasource"] = {**target["datasource"], "uid": _UID}


def _source_variable(site: dict[str, Any]) -> dict[str, Any]:
    """Return the variable of the hall's data source, from that of the site's."""
    name = hall_source("$hall")
    regex = f"/^[{name[0].upper()}{name[0]}]{name[1:]}$/"
    return {**site, "name": HALL_SOURCE, "label": "Data source of the hall", "regex": regex, "current": {}}


def _innermost(query: Query) -> str:
    while query.inner is not None:
        query = query.inner
    return query.measurement
