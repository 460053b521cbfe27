"""Checks of power and heat per slot: budgets of zones, cooling of halls, ramps of the site, the figures of the plan."""

from collections.abc import Iterator

import numpy as np

from powerhall.jobs import Job
from powerhall.plan.plan import gpu_power_w
from powerhall_optimizer.verify.case import PlanCase, Violation, over
from powerhall_optimizer.verify.loads import Loads, loads_of, power_before_w, slot_span, zone_budgets

__all__ = ["cooling_checks", "power_checks", "ramp_checks", "zone_checks"]


def _level(case: PlanCase, zone: str) -> str:
    if zone == case.site.name:
        return "site"
    if any(feed.zone == zone for feed in case.site.feeds):
        return "feed"
    return ("hall", "row", "rack")[zone.count("/")]


def power_checks(case: PlanCase, loads: Loads, silent: Loads | None) -> Iterator[Violation]:
    """No zone is over its budget less its margin: racks, rows, halls and feeds in IT power, the site at the meter."""
    for zone, budget_w in zone_budgets(case.snapshot).items():
        limit_w = np.maximum(0.0, budget_w - case.snapshot.margin_w.get(zone, 0.0))
        limit_w = limit_w if silent is None else np.maximum(limit_w, silent.zone_w[zone])
        yield from over(case, f"power_{_level(case, zone)}", zone, loads.zone_w[zone], limit_w)


def cooling_checks(case: PlanCase, loads: Loads, silent: Loads | None) -> Iterator[Violation]:
    """No hall gives off more heat than its plants take up in the weather of the slot."""
    for zone, overview in loads.halls.items():
        for medium, heat_w in overview.heat_w.items():
            limit_w = overview.capacity_w[medium]
            if silent is not None:
                limit_w = np.maximum(limit_w, silent.halls[zone].heat_w[medium])
            yield from over(case, "cooling", f"{zone} ({medium})", heat_w, limit_w)


def ramp_checks(case: PlanCase) -> Iterator[Violation]:
    """Where the plan starts, raises or ends a job, the site's power changes no faster than its ramp limits allow.

    Ends of jobs that run already, and slowing or stopping them for a budget, are no choice of the plan. The power of
    storage is not counted.
    """
    s = case.snapshot
    if case.site.ramp_up_w_per_s is None and case.site.ramp_down_w_per_s is None:
        return
    loads = loads_of(s, case.plan.assignments)
    rise_w = np.diff(loads.zone_w[case.site.name], prepend=power_before_w(s))
    starts, ends = np.zeros(s.slots + 1, bool), np.zeros(s.slots + 1, bool)
    for job, entry in case.pairs:
        first, last = slot_span(s, entry)
        if job.state == "waiting":
            starts[first] = ends[last] = True
        elif entry.gpu_power_w > _now_w(case, job) + 1e-6:
            starts[0] = True
    for way, limit, chosen in (
        ("up", case.site.ramp_up_w_per_s, np.where(starts[:-1], rise_w, 0.0)),
        ("down", case.site.ramp_down_w_per_s, np.where(ends[:-1], -rise_w, 0.0)),
    ):
        if limit is not None:
            limit_w = np.full(s.slots, limit * s.slot_s)
            yield from over(case, f"ramp_{way}", case.site.name, chosen, limit_w)


def _now_w(case: PlanCase, job: Job) -> float:
    """Return the present draw of each GPU of a running job, in W."""
    modes = [(k, m) for k in case.site.node_types.values() for m in k.modes if m.name == job.mode]
    own = [(k, m) for k, m in modes if job.node_type in (None, k.name)]
    return max((gpu_power_w(k, m, case.site.job_classes.get(job.job_class)) for k, m in own), default=0.0)


def zone_checks(case: PlanCase, loads: Loads) -> Iterator[Violation]:
    """The zones' figures in the plan equal the loads of its assignments."""
    for entry in case.plan.zones:
        load_w = loads.zone_w.get(entry.zone)
        if load_w is None or len(entry.planned_w) != case.snapshot.slots:
            yield Violation("zones", entry.zone, "is no zone of the site, or has not one value per slot")
        elif np.abs(np.array(entry.planned_w) - load_w).max() > 1.0:
            yield Violation("zones", entry.zone, "planned_w differs from the load of the assignments")
