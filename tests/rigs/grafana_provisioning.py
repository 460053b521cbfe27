"""What Grafana's provisioning by files refuses, read in its source; a folder that passes lets Grafana start.

The rules and where they stand in grafana/grafana (main of 2026):
* pkg/services/provisioning/alerting/rules_types.go: a group has a name, a folder and an interval; a rule has a uid, a
  title, a condition and data; durations are Prometheus', states are of a list; a text that names an environment
  variable by `$` is expanded;
* pkg/services/ngalert/models/alert_rule.go, SetDashboardAndPanelFromAnnotations: `__dashboardUid__` and `__panelId__`
  come together, the second is an integer; ValidateAlertRule: the interval is a multiple of ten seconds, titles are
  unique in their folder, a uid has at most 40 of letters, digits, `-` and `_`;
* pkg/services/ngalert/eval: the condition is the refId of a query, refIds are unique, expressions name refIds;
* pkg/services/provisioning/alerting/rules_provisioner.go: the folder of rules is found by its title, else made under a
  random uid, and this happens before dashboards are read (provisioning.go, RunInitProvisioners);
* pkg/services/provisioning/dashboards/config_reader.go and file_reader.go: a provider's name is unique, its type is
  `file`, its path exists; a dashboard has a title and no id, and uids and titles are unique.
The two links of a panel (that the dashboard and the panel exist) are our own wish: Grafana takes a dead link.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

_DURATION = re.compile(r"(?:\d+y)?(?:\d+w)?(?:\d+d)?(?:\d+h)?(?:\d+m)?(?:\d+s)?(?:\d+ms)?")
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_RULE_KEYS = frozenset(
    {
        "isPaused",
        "notification_settings",
        "record",
        "condition",
        "missing_series_evals_to_resolve",
        "data",
        "title",
        "dashboardUid",
        "panelId",
        "uid",
        "for",
        "annotations",
        "labels",
        "noDataState",
        "execErrState",
        "keepFiringFor",
    }
)
_UNITS_S = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}


def faults(provisioning: Path, dashboards: Path) -> list[str]:
    """Return what Grafana would refuse in a provisioning folder whose providers read `dashboards`."""
    boards = {path.name: json.loads(path.read_text()) for path in sorted(dashboards.glob("*.json"))}
    sources = [entry for _, data in _files(provisioning / "datasources") for entry in data.get("datasources", [])]
    providers = [entry for _, data in _files(provisioning / "dashboards") for entry in data.get("providers", [])]
    groups = [entry for _, data in _files(provisioning / "alerting") for entry in data.get("groups", [])]
    return [
        *_sources(sources),
        *_boards(boards),
        *_providers(providers, {str(group.get("folder")) for group in groups}),
        *_groups(groups, {entry.get("uid") for entry in sources}, {data.get("uid"): data for data in boards.values()}),
    ]


def _files(folder: Path) -> Iterator[tuple[str, dict]]:
    for path in sorted(folder.glob("*")):
        if path.suffix in (".yaml", ".yml", ".json"):
            yield path.name, yaml.safe_load(path.read_text())


def _twice(what: str, names: list[object]) -> list[str]:
    return [f"{what} {name!r}: {count} times" for name, count in Counter(names).items() if count > 1]


def _sources(sources: list[dict]) -> Iterator[str]:
    yield from _twice("data source", [(entry.get("orgId", 1), entry.get("name")) for entry in sources])
    yield from _twice("data source uid", [entry.get("uid") for entry in sources])
    for entry in sources:
        for key in ("name", "type", "access", "uid"):
            if not entry.get(key):
                yield f"data source {entry.get('name')}: no {key}"


def _boards(boards: dict[str, dict]) -> Iterator[str]:
    yield from _twice("dashboard uid", [data.get("uid") for data in boards.values()])
    yield from _twice("dashboard title", [data.get("title") for data in boards.values()])
    for name, data in boards.items():
        if not data.get("title"):
            yield f"{name}: no title"
        if data.get("id") is not None:
            yield f"{name}: has an id"
        if not _UID.fullmatch(str(data.get("uid"))):
            yield f"{name}: uid {data.get('uid')!r}"
        yield from _twice(f"{name}: panel", [panel.get("id") for panel in data["panels"]])


def _providers(providers: list[dict], rule_folders: set[str]) -> Iterator[str]:
    yield from _twice("provider", [entry.get("name") for entry in providers])
    for entry in providers:
        if entry.get("type") != "file" or not entry.get("options", {}).get("path"):
            yield f"provider {entry.get('name')}: needs type file and options.path"
        if entry.get("folderUid") and entry.get("folder") in rule_folders:
            yield f"provider {entry['name']}: folder {entry['folder']} would be there twice: rules make it by title"


def _groups(groups: list[dict], sources: set[object], boards: dict[object, dict]) -> Iterator[str]:
    rules = [rule for group in groups for rule in group.get("rules", [])]
    yield from _twice("rule uid", [rule.get("uid") for rule in rules])
    yield from _twice("rule", [(group.get("folder"), rule.get("title")) for group in groups for rule in group["rules"]])
    for group in groups:
        for key in ("name", "folder"):
            if not str(group.get(key, "")).strip() or "$" in group[key]:
                yield f"group: {key} {group.get(key)!r}"
        every_s = _seconds(group.get("interval"))
        if not every_s or every_s % 10:
            yield f"group {group.get('name')}: interval {group.get('interval')!r}"
        for rule in group["rules"]:
            yield from (f"{rule.get('uid')}: {fault}" for fault in _rule(rule, sources, boards))


def _rule(rule: dict, sources: set[object], boards: dict[object, dict]) -> Iterator[str]:
    yield from (f"unknown key {key}" for key in sorted(set(rule) - _RULE_KEYS))
    if not rule.get("title") or "$" in rule["title"] or not _UID.fullmatch(str(rule.get("uid"))):
        yield "title or uid"
    for key in ("for", "keepFiringFor"):
        if _seconds(rule.get(key, "0s")) is None:
            yield f"{key} {rule[key]!r}"
    if rule.get("noDataState", "") not in ("", "Alerting", "NoData", "OK", "KeepLast"):
        yield f"noDataState {rule['noDataState']!r}"
    if rule.get("execErrState", "") not in ("", "Alerting", "Error", "OK", "KeepLast"):
        yield f"execErrState {rule['execErrState']!r}"
    yield from _data(rule, sources)
    notes = rule.get("annotations", {})
    yield from (f"annotation {name} would be expanded: {text!r}" for name, text in notes.items() if "${" in text)
    board, panel = notes.get("__dashboardUid__", ""), notes.get("__panelId__", "")
    if bool(board) != bool(panel):
        yield "both annotations __dashboardUid__ and __panelId__ must be specified"
    elif panel and not panel.isdecimal():
        yield "annotation __panelId__ must be a valid integer Panel ID"
    elif panel:
        found = [entry for entry in boards.get(board, {"panels": []})["panels"] if entry["id"] == int(panel)]
        if not found or found[0]["type"] == "row":
            yield f"links to panel {panel} of {board}, which is not there"


def _data(rule: dict, sources: set[object]) -> Iterator[str]:
    parts = rule.get("data") or []
    ids = [part.get("refId") for part in parts]
    if not parts:
        yield "no data set"
    if len(set(ids)) < len(ids) or rule.get("condition") not in ids:
        yield f"condition {rule.get('condition')!r} of {ids}"
    for part in parts:
        model, times = part["model"], part["relativeTimeRange"]
        if part["datasourceUid"] == "__expr__":
            named = [name.strip("${} ") for name in re.split(r"[-+*/]", model.get("expression", ""))]
            yield from (f"{part['refId']}: names {name!r}" for name in named if name not in ids)
        elif part["datasourceUid"] not in sources:
            yield f"{part['refId']}: data source {part['datasourceUid']!r}"
        elif times["from"] <= times["to"]:
            yield f"{part['refId']}: range {times}"


def _seconds(text: object) -> float | None:
    """Read a duration as Prometheus' model.ParseDuration; None where it refuses it."""
    if text == "0":
        return 0.0
    if not isinstance(text, str) or not text or not _DURATION.fullmatch(text):
        return None
    return sum(int(number) * _UNITS_S[unit] for number, unit in re.findall(r"(\d+)(ms|[ywdhms])", text))
