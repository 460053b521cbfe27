"""Runs the queries of every panel against a store, for a chosen site, hall, node, plan and job."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo

from powerhall.runtime.errors import ConfigError
from powerhall.store import Query, Row, Select, Store
from powerhall_dashboards.boards.parts import JOBS_SINCE_S, MARKED, table
from powerhall_dashboards.model import Board, Panel

__all__ = ["Answer", "Event", "answer_board", "choose", "events", "halls_of", "newest_s", "sites"]

_FAR_S = 4e9
_SITES = (("site_10s", {"it": "it_power_w"}), ("gpu", {"power": "power_w"}))
_DAY_S = 86_400.0
Chosen = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A panel with the rows that each of its queries gave, over start_s to end_s, to be shown in a time zone."""

    panel: Panel
    rows: tuple[tuple[Query, list[Row]], ...]
    start_s: float
    end_s: float
    zone: tzinfo = UTC

    @property
    def empty(self) -> bool:
        """Whether no query gave a row."""
        return not any(rows for _, rows in self.rows)


@dataclass(frozen=True, slots=True)
class Event:
    """An event that is marked on every chart."""

    time_s: float
    kind: str
    text: str


def newest_s(store: Store) -> float:
    """Return when the newest roll-up was taken, or the newest reading of a GPU; an empty store raises ConfigError."""
    for measurement, field in (("site_10s", "it_power_w"), ("gpu", "power_w")):
        rows = store.query(Query(measurement, (Select(field),), order="desc", limit=1), 0.0, _FAR_S)
        if rows:
            return rows[0].time_s
    raise ConfigError("preview: the store holds no telemetry yet (no site_10s and no gpu points)")


def sites(store: Store, end_s: float) -> list[str]:
    """Return the sites of the last day, by their roll-ups or, where there are none, by their GPUs."""
    newest = (table(name, fields, {}, ("site",)) for name, fields in _SITES)
    rows = next((found for query in newest if (found := store.query(query, end_s - _DAY_S, end_s + 1))), [])
    return [row.tags["site"] for row in rows]


def halls_of(store: Store, site: tuple[str, ...], end_s: float) -> list[str]:
    """Return the halls of a site, by the roll-ups of the last day."""
    rows = store.query(table("hall_10s", {"it": "it_power_w"}, {"site": site}, ("hall",)), end_s - _DAY_S, end_s + 1)
    return [row.tags["hall"] for row in rows]


def choose(store: Store, end_s: float, given: Chosen) -> dict[str, tuple[str, ...]]:
    """Return the given choices, else the site, its tightest hall, hottest node, newest plan and largest job."""
    chosen = dict(given)
    since_s = end_s - _DAY_S
    if "site" not in chosen:
        chosen["site"] = (next(iter(sites(store, end_s)), ""),)
    if "hall" not in chosen:
        chosen["hall"] = (_tightest_hall(store, chosen["site"], since_s, end_s),)
    if "node" not in chosen:
        hottest = Query("gpu", (Select("temp_c", "max"),), {"site": chosen["site"]}, ("node",))
        rows = store.query(hottest, end_s - 600, end_s + 1)
        ranked = sorted(rows, key=lambda row: row.number("temp_c") or 0.0)
        chosen["node"] = (ranked[-1].tags["node"],) if ranked else ("",)
    if "plan" not in chosen:
        plans = table("plan", {"plan": "plan_id"}, {"site": chosen["site"]}, ())
        rows = store.query(plans, since_s, end_s + 1)
        chosen["plan"] = (str(rows[0].values["plan"]),) if rows else ("",)
    if "job" not in chosen:
        chosen["job"] = (_largest_job(store, chosen["site"], end_s - JOBS_SINCE_S, end_s),)
    return chosen


def _tightest_hall(store: Store, site: tuple[str, ...], since_s: float, end_s: float) -> str:
    """Return the hall of least headroom; where no hall has a power limit, the one of most IT power."""
    for field, sign in (("headroom_w", 1.0), ("it_power_w", -1.0)):
        rows = store.query(table("hall_10s", {"found": field}, {"site": site}, ("hall",)), since_s, end_s + 1)
        if rows:
            return min(rows, key=lambda row: sign * (row.number("found") or 0.0)).tags["hall"]
    return ""


def _largest_job(store: Store, site: tuple[str, ...], since_s: float, end_s: float) -> str:
    jobs = Query("job_interval", (Select("job"), Select("energy_j")), {"site": site}, ("node", "gpu"))
    energy_j: dict[str, float] = {}
    for row in store.query(jobs, since_s, end_s + 1):
        job = str(row.values["job"] or "")
        energy_j[job] = energy_j.get(job, 0.0) + (row.number("energy_j") or 0.0)
    if not energy_j:  # jobs are only planned so far: the one that is to draw most
        planned = Query("plan_job", (Select("job"), Select("power_w")), {"site": site}, ("row",), order="desc", limit=1)
        for row in store.query(planned, since_s, end_s + 1):
            energy_j[str(row.values["job"] or "")] = row.number("power_w") or 0.0
    return max(energy_j, key=lambda job: energy_j[job], default="")


def _chosen_of(store: Store, board: Board, chosen: Chosen, given: Chosen, end_s: float) -> Chosen:
    """Keep the given choices and those of exactly one value; on a job's page the nodes are those of the job."""
    names = {choice.name for choice in board.choices if not choice.several or choice.name in given}
    kept = {name: values for name, values in chosen.items() if name in names}
    if "job" not in names:
        return kept
    intervals = Query("job_interval", (Select("job"),), {"site": chosen["site"]}, ("node",))
    rows = store.query(intervals, end_s - JOBS_SINCE_S, end_s + 1)
    nodes = sorted({row.tags["node"] for row in rows if row.values["job"] == chosen["job"][0]})
    return kept | {"node": tuple(nodes) or ("",)}


def answer_board(
    store: Store, board: Board, given: Chosen, chosen: Chosen, end_s: float, *, hours: float | None, zone: tzinfo = UTC
) -> list[Answer]:
    """Run every query of a board; the range includes its end."""
    kept = _chosen_of(store, board, chosen, given, end_s)
    answers = []
    for panel in board.panels:
        start_s, until_s = end_s - (panel.recent_s or (hours or board.hours) * 3600), end_s + 1
        if panel.future:
            start_s, until_s = end_s - 300, end_s + (panel.recent_s or 0)
        wide_s = max(1.0, round((until_s - start_s) / panel.points))
        queries = [query.bind(kept).bucketed(wide_s) for query in panel.queries]
        rows = tuple((query, store.query(query, start_s, until_s)) for query in queries)
        first_s = min((row.time_s for _, found in rows for row in found), default=start_s)
        if panel.kind not in ("table", "age") and until_s - first_s < (until_s - start_s) / 4:
            # The store is young: draw what there is as finely as the panel can show it.
            start_s = first_s
            wide_s = max(1.0, round((until_s - start_s) / panel.points))
            queries = [query.bind(kept).bucketed(wide_s) for query in panel.queries]
            rows = tuple((query, store.query(query, start_s, until_s)) for query in queries)
        answers.append(Answer(panel, rows, start_s, until_s, zone))
    return answers


def events(store: Store, site: tuple[str, ...], start_s: float, end_s: float) -> list[Event]:
    """Return the events that are marked on charts."""
    kinds = tuple(kind for _, kinds, _ in MARKED for kind in kinds)
    query = Query("event", (Select("detail"),), {"site": site, "kind": kinds}, ("kind",))
    return [
        Event(row.time_s, row.tags["kind"], str(row.values["detail"])) for row in store.query(query, start_s, end_s)
    ]
