"""Checks a running Grafana: data source, dashboards, and the queries of every panel and annotation."""

import time
from dataclasses import asdict, dataclass

from powerhall.runtime.errors import Rejected
from powerhall.store import Query, Select
from powerhall.store.influxdb.influxql import render_grafana
from powerhall.store.schema import MEASUREMENTS
from powerhall_dashboards.boards import BOARDS
from powerhall_dashboards.boards.parts import MARKED
from powerhall_dashboards.grafana.query import AnnotationTarget, interpolate, policy_of, targets
from powerhall_dashboards.live.client import Grafana, Json
from powerhall_dashboards.live.publish import compare
from powerhall_dashboards.model import Board, Choice, Panel

__all__ = ["Check", "as_table", "verify"]

_LOOK_BACK_S = 86_400.0
Chosen = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table. A query without rows has not failed: a healthy site has no failing collectors."""

    what: str
    ok: bool
    rows: int | None = None
    seconds: float = 0.0
    detail: str = ""

    def as_dict(self) -> Json:
        """Return the check as plain data."""
        return asdict(self)


def verify(
    grafana: Grafana, datasource_uid: str, now_s: float | None = None, *, by_class: bool = False, by_hall: bool = False
) -> list[Check]:
    """Check everything; a Grafana that cannot be reached, or refuses the token, raises."""
    until_s = time.time() if now_s is None else now_s
    checks = [Check(f"Grafana {grafana.version()}", ok=True), _datasource(grafana, datasource_uid)]
    differences = compare(grafana, by_class=by_class, by_hall=by_hall)
    asker = _Asker(grafana, datasource_uid, until_s, by_class)
    for board in BOARDS:
        own = [entry for entry in differences if entry.uid == board.uid]
        checks.append(Check(board.title, not own, detail="; ".join(entry.detail for entry in own)))
        if checks[1].ok and not any(entry.absent for entry in own):
            chosen = asker.choose(board)
            checks += [asker.panel(board, panel, chosen) for panel in board.panels]
            checks += [asker.annotation(board, name, kinds, chosen) for name, kinds in _annotations(board)]
    return checks


def _annotations(board: Board) -> list[tuple[str, tuple[str, ...]]]:
    return [(name, kinds) for name, kinds, _ in MARKED] if board.annotations else []


def _datasource(grafana: Grafana, uid: str) -> Check:
    started = time.monotonic()
    ok, message = False, "there is no such data source"
    if grafana.datasource(uid) is not None:
        ok, message = grafana.datasource_health(uid)
    return Check(f"data source {uid}", ok, seconds=time.monotonic() - started, detail=message)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Runs queries through Grafana as its panels do."""

    grafana: Grafana
    datasource_uid: str
    until_s: float
    by_class: bool

    def panel(self, board: Board, panel: Panel, chosen: Chosen) -> Check:
        """Run all queries of a panel over its own range of time."""
        start_s, end_s = self.until_s - (panel.recent_s or board.hours * 3600), self.until_s
        if panel.future:
            start_s, end_s = self.until_s, self.until_s + (panel.recent_s or 0)
        made = targets(panel, by_class=self.by_class)
        queries = [target.to_json() | {"query": interpolate(target.query, chosen)} for target in made]
        every_ms = round(1000 * max((end_s - start_s) / panel.points, *(query.every_s or 0 for query in panel.queries)))
        return self._run(f"{board.title}: {panel.title}", queries, start_s, end_s, every_ms)

    def annotation(self, board: Board, name: str, kinds: tuple[str, ...], chosen: Chosen) -> Check:
        """Run an annotation's query with the keys that Grafana sends of it; a policy beside the text is not sent."""
        made = AnnotationTarget(kinds, by_class=self.by_class).to_json()
        query = {key: made[key] for key in ("refId", "rawQuery", "resultFormat")}
        query["query"] = interpolate(str(made["query"]), chosen)
        start_s = self.until_s - board.hours * 3600
        return self._run(f"{board.title}: marks of {name}", [query], start_s, self.until_s, 10_000)

    def _run(self, what: str, queries: list[Json], start_s: float, end_s: float, every_ms: int) -> Check:
        started = time.monotonic()
        try:
            results = self.ask(queries, start_s, end_s, every_ms)
        except Rejected as error:
            return Check(what, ok=False, detail=str(error))
        seconds = time.monotonic() - started
        errors = [str(result["error"]) for result in results.values() if result.get("error")]
        missing = [str(query["refId"]) for query in queries if query["refId"] not in results]
        errors += [f"no answer to query {ref_id}" for ref_id in missing]
        rows = sum(_rows(result) for result in results.values())
        return Check(what, not errors, rows, seconds, "; ".join(errors))

    def ask(self, queries: list[Json], start_s: float, end_s: float, every_ms: int = 10_000) -> Json:
        """Run queries against the data source, with this interval for buckets."""
        more = {
            "datasource": {"type": "influxdb", "uid": self.datasource_uid},
            "intervalMs": max(every_ms, 1000),
        }
        return self.grafana.ask([query | more for query in queries], start_s, end_s)

    def choose(self, board: Board) -> Chosen:
        """Choose a value for each variable that takes exactly one; the others mean all."""
        chosen: Chosen = {}
        for choice in board.choices:
            if not choice.several:
                values = self.values(choice, chosen)
                chosen[choice.name] = (values[0],) if values else ("",)
        return chosen

    def values(self, choice: Choice, chosen: Chosen) -> list[str]:
        """Return the values of a variable, by the newest point of each."""
        where = {name: chosen[name] for name in choice.within if name in chosen}
        field = choice.field if choice.is_field else MEASUREMENTS[choice.measurement].fields[0].name
        groups = () if choice.is_field else (choice.name,)
        query = Query(choice.measurement, (Select(field, "last", "value"),), where, groups)
        target: Json = {"refId": "A", "query": render_grafana(query), "rawQuery": True, "resultFormat": "time_series"}
        target["policy"] = policy_of(choice.measurement, by_class=self.by_class)
        results = self.ask([target], self.until_s - _LOOK_BACK_S, self.until_s)
        found = []
        for frame in results.get("A", {}).get("frames", []):
            label = (frame["schema"]["fields"][-1].get("labels") or {}).get(choice.name)
            found += [str(value) for value in frame["data"]["values"][-1]] if choice.is_field else [str(label)]
        return sorted(found)


def _rows(result: Json) -> int:
    """Count the rows of all frames of a result."""
    columns = [frame["data"]["values"] for frame in result.get("frames", [])]
    return sum(len(values[0]) for values in columns if values)


def as_table(checks: list[Check]) -> list[str]:
    """Return the checks as lines of text, and a line that sums them up."""
    width = max(len(check.what) for check in checks)
    lines = [f"{'check':<{width}}  result    rows      ms  detail"]
    for check in checks:
        rows = "" if check.rows is None else str(check.rows)
        result = "ok" if check.ok else "FAILED"
        lines.append(
            f"{check.what:<{width}}  {result:<6} {rows:>7} {check.seconds * 1000:>7.0f}  {check.detail}".rstrip()
        )
    failed = sum(not check.ok for check in checks)
    empty = sum(check.rows == 0 for check in checks)
    return [*lines, f"{len(checks)} checks, {failed} failed, {empty} panels without rows"]
