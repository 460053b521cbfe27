"""Alert rules as a Grafana provisioning file, and as a page of documentation."""

import hashlib
import json
import textwrap
from collections.abc import Sequence

from powerhall.store import Query
from powerhall.store.hall_stores import KEPT_BY_HALL, hall_source
from powerhall.store.influxdb.influxql import render_grafana
from powerhall_dashboards.alerts import RULES, Rule
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.grafana.dashboard import panel_numbers
from powerhall_dashboards.grafana.query import policy_of

__all__ = ["alerts_markdown", "provisioning_json"]

_DATASOURCE_UID = "powerhall"
_EXPRESSION_UID = "__expr__"
Json = dict[str, object]


def provisioning_json(*, by_class: bool = False, halls: Sequence[str] = ()) -> str:
    """Return the provisioning file: one group, evaluated every minute; with `halls` each has a store of its own."""
    rules = [_rule(rule, _DATASOURCE_UID, by_class=by_class) for rule in RULES if not (halls and _of_nodes(rule))]
    for hall in halls:
        of_hall = [rule for rule in RULES if _of_nodes(rule)]
        rules += [_of_hall(_rule(rule, hall_source(hall), by_class=by_class), hall) for rule in of_hall]
    group = {
        "orgId": 1,
        "name": "powerhall",
        "folder": "Powerhall",
        "interval": "30s",
        "rules": rules,
    }
    return json.dumps({"apiVersion": 1, "groups": [group]}, indent=2) + "\n"


def _of_nodes(rule: Rule) -> bool:
    """Return whether a rule looks at what nodes write, which is in the store of their hall."""
    return any(query.measurement in {*KEPT_BY_HALL, "event"} for query in rule.queries)


def _of_hall(made: Json, hall: str) -> Json:
    """Give the rule of a hall a name of its own; Grafana takes uids of at most 40 characters."""
    digest = hashlib.sha256(hall.encode()).hexdigest()[:6]
    return {**made, "uid": f"{made['uid']}"[:33] + f"-{digest}", "title": f"{made['title']} ({hall})"}


def _rule(rule: Rule, datasource: str, *, by_class: bool) -> Json:
    return {
        "uid": rule.uid,
        "title": rule.title,
        "condition": "CONDITION",
        "data": _data(rule, datasource, by_class=by_class),
        "noDataState": rule.silence,
        "execErrState": "Error",
        "for": f"{rule.for_s}s",
        "annotations": {"summary": rule.means, "description": rule.do} | _panel_link(rule),
        "labels": {"severity": rule.severity, "component": "powerhall"},
        "isPaused": False,
    }


def _panel_link(rule: Rule) -> Json:
    """Return the annotations that tie a rule to its panel; Grafana refuses one without the other, and numbers."""
    (board,) = (board for board in BOARDS if board.uid == rule.board)
    return {"__dashboardUid__": rule.board, "__panelId__": str(panel_numbers(board)[rule.panel])}


def _query_text(rule: Rule, query: Query) -> str:
    text = render_grafana(query).replace("$__interval", f"{query.every_s or 10:g}s")
    if not rule.quiet_buckets:
        return text
    (entry,) = query.select
    column = f'{entry.aggregate}("{entry.field}")'
    return text.replace(column, f"moving_average({column}, {rule.quiet_buckets})", 1).replace("fill(none)", "fill(0)")


def _data(rule: Rule, datasource: str, *, by_class: bool) -> list[Json]:
    """Queries, each reduced to a number per series, then their difference where there are two, then the comparison."""
    parts: list[Json] = []
    for letter, query in zip("AB", rule.queries, strict=False):
        model: Json = {
            "refId": letter,
            "query": _query_text(rule, query),
            "rawQuery": True,
            "resultFormat": "time_series",
        }
        if policy := policy_of(query.measurement, by_class=by_class):
            model["policy"] = policy
        parts.append(_part(letter, datasource, rule.look_back_s, model))
        reduce: Json = {
            "refId": f"{letter}R",
            "type": "reduce",
            "expression": letter,
            "reducer": rule.reduce,
            "settings": {"mode": "dropNN"},
        }
        parts.append(_part(f"{letter}R", _EXPRESSION_UID, 0, reduce))
    number = "AR"
    if len(rule.queries) == 2:
        number = "DIFFERENCE"
        parts.append(_part(number, _EXPRESSION_UID, 0, {"refId": number, "type": "math", "expression": "$BR - $AR"}))
    evaluator = {"type": rule.compare, "params": list(rule.limits)}
    model = {"refId": "CONDITION", "type": "threshold", "expression": number, "conditions": [{"evaluator": evaluator}]}
    return [*parts, _part("CONDITION", _EXPRESSION_UID, 0, model)]


def _part(letter: str, datasource: str, look_back_s: int, model: Json) -> Json:
    source = {"datasource": {"type": "__expr__", "uid": datasource}} if datasource == _EXPRESSION_UID else {}
    return {
        "refId": letter,
        "relativeTimeRange": {"from": look_back_s, "to": 0},
        "datasourceUid": datasource,
        "model": {**model, **source},
    }


def alerts_markdown() -> str:
    """Return the page of alerts: the condition, meaning and response of each."""
    titles = {board.uid: board.short_title for board in BOARDS}
    parts = [
        "# Alerts\n\nWhat each alert means and what to do. The rules are in `deploy/grafana/provisioning/alerting/`;\n"
        "this page and that file are made by `powerhall-dashboards build` from `powerhall_dashboards/alerts.py`.\n"
    ]
    for rule in RULES:
        limits = " and ".join(f"{limit:g}" for limit in rule.limits)
        words = {"gt": "above", "lt": "below", "outside_range": "outside"}[rule.compare]
        silence = "; no data raises it too" if rule.silence == "Alerting" else ""
        when = f"Severity: {rule.severity}. Raised when the value is {words} {limits} for {rule.for_s} s{silence}. "
        also = f" Also called: {rule.also}." if rule.also else ""
        paragraphs = (
            f"{when}Look at: {titles[rule.board]}, {rule.panel}.{also}",
            f"**Means.** {rule.means}",
            f"**Do.** {rule.do}",
        )
        parts.append(f"\n## {rule.title}\n\n" + "\n\n".join(map(_wrapped, paragraphs)) + "\n")
    return "".join(parts)


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, 118, break_long_words=False, break_on_hyphens=False)
