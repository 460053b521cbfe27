"""Alert rules as a Grafana provisioning file, and as a page of documentation."""

import json
import textwrap

from powerhall.store.influxdb.influxql import render_grafana
from powerhall_dashboards.alerts import RULES, Rule
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.grafana.query import policy_of

__all__ = ["alerts_markdown", "provisioning_json"]

_DATASOURCE_UID = "powerhall"
_EXPRESSION_UID = "__expr__"
Json = dict[str, object]


def provisioning_json(*, by_class: bool = False) -> str:
    """Return the provisioning file: one group, evaluated every minute."""
    group = {
        "orgId": 1,
        "name": "powerhall",
        "folder": "Powerhall",
        "interval": "30s",
        "rules": [_rule(r, by_class=by_class) for r in RULES],
    }
    return json.dumps({"apiVersion": 1, "groups": [group]}, indent=2) + "\n"


def _rule(rule: Rule, *, by_class: bool) -> Json:
    return {
        "uid": rule.uid,
        "title": rule.title,
        "condition": "CONDITION",
        "data": _data(rule, by_class=by_class),
        "noDataState": rule.silence,
        "execErrState": "Error",
        "for": f"{rule.for_s}s",
        "annotations": {"summary": rule.means, "description": rule.do, "__dashboardUid__": rule.board},
        "labels": {"severity": rule.severity, "component": "powerhall"},
        "isPaused": False,
    }


def _data(rule: Rule, *, by_class: bool) -> list[Json]:
    """Queries, each reduced to a number per series, then their difference where there are two, then the comparison."""
    parts: list[Json] = []
    for letter, query in zip("AB", rule.queries, strict=False):
        model: Json = {
            "refId": letter,
            "query": render_grafana(query).replace("$__interval", f"{query.every_s or 10:g}s"),
            "rawQuery": True,
            "resultFormat": "time_series",
        }
        if policy := policy_of(query.measurement, by_class=by_class):
            model["policy"] = policy
        parts.append(_part(letter, _DATASOURCE_UID, rule.look_back_s, model))
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
        also = f"\nAlso called: {rule.also}." if rule.also else ""
        parts.append(
            f"\n## {rule.title}\n\nSeverity: {rule.severity}. "
            f"Raised when the value is {words} {limits} for {rule.for_s} s"
            f"{'; no data raises it too' if rule.silence == 'Alerting' else ''}. "
            f"Look at: {titles[rule.board]}.{also}\n\n"
            f"{_wrapped(f'**Means.** {rule.means}')}\n\n{_wrapped(f'**Do.** {rule.do}')}\n"
        )
    return "".join(parts)


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, 118, break_long_words=False, break_on_hyphens=False)
