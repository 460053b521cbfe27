"""Events that dashboards mark on every chart: changes of budgets, and plans that move jobs."""

from collections.abc import Iterable, Iterator

from powerhall.plan.plan import Assignment
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.store.line_protocol import Point
from powerhall_optimizer.rollup.planned_power import PlannedPower
from powerhall_optimizer.rollup.readings import BUCKET_S

__all__ = ["curtailments", "plan_change"]

_CHANGE = 0.01
"""Relative change of a budget that makes an event, at least."""


def curtailments(site: Site, times_s: Iterable[int]) -> Iterator[Point]:
    """Yield an event where the budget of a zone falls (a warning) or rises again (information)."""
    halls = SiteIndex.of(site).halls
    for time_s in times_s:
        for number, (zone, budget) in enumerate(site.budgets.items()):
            before_w, now_w = budget.at(time_s - BUCKET_S), budget.at(time_s)
            if abs(now_w - before_w) <= _CHANGE * max(before_w, now_w):
                continue
            falls = now_w < before_w
            verb = "falls" if falls else "rises"
            detail = f"budget of {zone} {verb} from {before_w / 1e3:,.0f} kW to {now_w / 1e3:,.0f} kW"
            tags = {"site": site.name, "hall": zone if zone in halls else "", "kind": "curtailment"}
            fields: dict[str, float | str] = {"code": 0.0, "detail": detail, "severity": 1.0 if falls else 0.0}
            yield Point("event", tags, fields, time_s * 1000 + number)  # zones that are no hall share a series


def plan_change(site: str, before: PlannedPower, now: PlannedPower) -> Point | None:
    """Return the event of a plan that starts, stops, moves or re-powers jobs at once; else None."""
    time_s = now.snapshot.start_s
    old, new = _at(before, time_s), _at(now, time_s)
    both = old.keys() & new.keys()
    counts = {
        "start": len(new.keys() - old.keys()),
        "stop": len(old.keys() - new.keys()),
        "move": sum(old[job].hall != new[job].hall for job in both),
        "change power mode": sum(old[job].mode != new[job].mode for job in both),
    }
    words = [f"{count} {verb}" for verb, count in counts.items() if count]
    if not words:
        return None
    detail = f"plan {now.plan_id[:8]}: of {len(new)} jobs {', '.join(words)}"
    fields: dict[str, float | str] = {"code": 0.0, "detail": detail, "severity": 0.0}
    return Point("event", {"site": site, "kind": "plan_change"}, fields, time_s * 1000)


def _at(plan: PlannedPower, time_s: int) -> dict[str, Assignment]:
    return {entry.job_id: entry for entry in plan.assignments if entry.start_s <= time_s < entry.end_s}
