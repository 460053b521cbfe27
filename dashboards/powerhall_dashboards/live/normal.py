"""Brings a dashboard into one form, whatever way Grafana stored it, so that two of them can be compared.

A Grafana that saves through its v1 API rewrites a dashboard: it adds the built-in annotation, `timepicker`, `weekStart`
and empty lists, drops nulls and values that equal the defaults of its front end, orders panels by their place and
raises the schema version. Source: grafana/grafana, apps/dashboard/pkg/migration/frontend_defaults.go. None of that is a
change that somebody made.
"""

from typing import Any

__all__ = ["normalised"]

Json = dict[str, Any]

_OF_THE_SERVER = frozenset({"id", "version", "iteration", "meta", "schemaVersion"})
"""Keys of a dashboard that Grafana sets; `id` of a panel is ours."""
_OF_THE_READER = frozenset({"current", "options", "definition", "index"})
"""Keys of a variable that hold what a reader chose or Grafana derived last."""
_OF_THE_PANEL = frozenset({"pluginVersion", "cachedPluginOptions", "scopedVars"})
_DEFAULTS: dict[str, object] = {
    "allowCustomValue": True,
    "editable": True,
    "enable": True,
    "repeatDirection": "h",
    "type": "dashboard",
}
"""Defaults that are not empty; a key is left out where it holds its default."""
_ZERO_BY_DEFAULT = frozenset({"builtIn", "fiscalYearStartMonth", "graphTooltip", "hide", "index", "refresh", "sort"})
_EMPTY: tuple[object, ...] = (None, False, "", [], {})


def normalised(stored: Json) -> Json:
    """Return the dashboard without what Grafana adds, drops or derives."""
    plain = {name: value for name, value in stored.items() if name not in _OF_THE_SERVER}
    annotations = plain.get("annotations") or {}
    plain["annotations"] = {
        **annotations,
        "list": [entry for entry in annotations.get("list") or [] if not entry.get("builtIn")],
    }
    templating = plain.get("templating") or {}
    plain["templating"] = {
        **templating,
        "list": [_without(variable, _OF_THE_READER) for variable in templating.get("list") or []],
    }
    plain["panels"] = sorted((_without(panel, _OF_THE_PANEL) for panel in plain.get("panels") or []), key=_place)
    return _compact(plain)


def _without(entry: Json, names: frozenset[str]) -> Json:
    return {name: value for name, value in entry.items() if name not in names}


def _place(panel: Json) -> tuple[float, float]:
    place = panel.get("gridPos") or {}
    return place.get("y") or 0, place.get("x") or 0


def _compact(entry: Json) -> Json:
    """Leave out what is empty or a default, at every depth; a list keeps its entries."""
    found = {}
    for name, value in entry.items():
        inner = _value(value)
        default = inner == _DEFAULTS[name] if name in _DEFAULTS else any(inner is e or inner == e for e in _EMPTY)
        # 0 == False in Python: a zero counts as empty only where zero is the default.
        if isinstance(inner, int | float) and not isinstance(inner, bool) and name not in _DEFAULTS:
            default = inner == 0 and name in _ZERO_BY_DEFAULT
        if not default:
            found[name] = inner
    return found


def _value(value: object) -> object:
    if isinstance(value, dict):
        return _compact(value)
    if isinstance(value, list):
        return [_value(entry) for entry in value]
    return value
