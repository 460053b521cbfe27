"""The independent checker: checks a plan from plan.json alone, with the true curves; no figure of the plan is trusted.

One function per kind of limit; each yields its violations.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan.plan import Assignment, Plan, Snapshot, gpu_power_w, gpu_speed, snapshot_hash
from powerhall.runtime.errors import PowerhallError
from powerhall.site.topology import Mode, NodeType
from powerhall_optimizer.verify.loads import Loads, loads_of, plan_loads, power_before_w, slot_span, zone_budgets
from powerhall_optimizer.verify.storage import storage_checks
from powerhall_optimizer.verify.times import time_text
from powerhall_optimizer.verify.value import value_and_bound

__all__ = ["Violation", "verify_plan"]

Floats = npt.NDArray[np.float64]
_WATT = 0.5
"""Rounding of planned draws to whole watts is no violation."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One violation: `kind` is a code, `where` a zone, node or job."""

    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        """The line that commands print."""
        return f"{self.kind}: {self.where}: {self.text}"


class _Case:
    """A plan with the inputs of every check."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.snapshot: Snapshot = plan.snapshot
        self.site = plan.snapshot.site
        self.jobs = {job.job_id: job for job in plan.snapshot.jobs}
        self.racks = {rack.zone: rack for rack in self.site.racks()}
        self.pairs = [(self.jobs[a.job_id], a) for a in plan.assignments if a.job_id in self.jobs]
        self.waiting = {entry.job_id: entry for entry in plan.waiting}

    def kind_mode(self, entry: Assignment) -> tuple[NodeType | None, Mode | None]:
        kind = self.site.node_types.get(entry.node_type)
        mode = None if kind is None else next((m for m in kind.modes if m.name == entry.mode), None)
        return kind, mode

    def when(self, slot: int) -> str:
        return time_text(self.snapshot.start_s + slot * self.snapshot.slot_s)


Check = Callable[[_Case], Iterator[Violation]]


def _identity(case: _Case) -> Iterator[Violation]:
    digest = snapshot_hash(case.snapshot)
    if case.plan.plan_id != digest:
        yield Violation(
            "identity", "plan_id", f"{case.plan.plan_id[:12]}... is not the hash of the snapshot {digest[:12]}..."
        )


def _site(case: _Case) -> Iterator[Violation]:
    """Every zone and node of the site occurs once, and every rack has a known node type."""
    racks = list(case.site.racks())
    zones = [hall.zone for hall in case.site.halls]
    zones += [row.zone for hall in case.site.halls for row in hall.rows] + [rack.zone for rack in racks]
    for names, text in ((zones, "is a zone twice"), ([n for r in racks for n in r.nodes], "is a node twice")):
        yield from (Violation("site", name, text) for name, count in Counter(names).items() if count > 1)
    for rack in racks:
        if rack.node_type not in case.site.node_types:
            yield Violation("site", rack.zone, f"has nodes of the unknown type {rack.node_type}")


def _jobs(case: _Case) -> Iterator[Violation]:
    """Every job is decided once; one that stops later is both assigned and waiting."""
    assigned: set[str] = set()
    for entry in case.plan.assignments:
        if entry.job_id not in case.jobs:
            yield Violation("jobs", entry.job_id, "is assigned but not in the snapshot")
        elif entry.job_id in assigned:
            yield Violation("jobs", entry.job_id, "is assigned twice")
        assigned.add(entry.job_id)
    for job_id, waiting in case.waiting.items():
        if job_id not in case.jobs:
            yield Violation("jobs", job_id, "waits but is not in the snapshot")
        elif job_id in assigned and waiting.code != "shed":
            yield Violation("jobs", job_id, "both runs and waits")
    if len(case.waiting) != len(case.plan.waiting):
        yield Violation("jobs", "waiting", "a job waits twice")
    for job_id in case.jobs.keys() - assigned - case.waiting.keys():
        yield Violation("jobs", job_id, "is neither assigned nor waiting")


def _eligibility(case: _Case) -> Iterator[Violation]:
    for job, entry in case.pairs:
        if job.halls and entry.hall not in job.halls:
            yield Violation("eligibility", job.job_id, f"runs in {entry.hall}; may use {', '.join(job.halls)}")
        if job.node_types and entry.node_type not in job.node_types:
            yield Violation(
                "eligibility", job.job_id, f"runs on {entry.node_type}; may use {', '.join(job.node_types)}"
            )


def _residency(case: _Case) -> Iterator[Violation]:
    for job, _ in case.pairs:
        if job.sites and case.site.name not in job.sites:
            yield Violation("residency", job.job_id, f"may run only at {', '.join(job.sites)}, not at {case.site.name}")
        if job.state == "running" and job.site not in (None, case.site.name):
            yield Violation("running", job.job_id, f"runs at {job.site}, not at {case.site.name}")


def _modes(case: _Case) -> Iterator[Violation]:
    """The mode exists, and the planned draw follows from the mode and the job's class."""
    for job, entry in case.pairs:
        kind, mode = case.kind_mode(entry)
        if kind is None or mode is None:
            yield Violation("mode", job.job_id, f"{entry.node_type} has no mode {entry.mode!r}")
            continue
        due_w = gpu_power_w(kind, mode, case.site.job_classes.get(job.job_class))
        if entry.gpu_power_w < due_w - 1e-6 * due_w:
            yield Violation(
                "mode", job.job_id, f"is planned at {entry.gpu_power_w:.1f} W a GPU; {entry.mode} draws {due_w:.1f} W"
            )
        now = next((m for m in kind.modes if m.name == job.mode), None)
        if job.state == "running" and not case.snapshot.allow_raises and now and mode.gpu_power_w > now.gpu_power_w:
            yield Violation("mode", job.job_id, f"is raised from {now.name} to {mode.name} while no raises are allowed")


def _times(case: _Case) -> Iterator[Violation]:
    """Starts lie on the grid and not before the job may start; ends are where its work is done."""
    s = case.snapshot
    end_s = s.start_s + s.slots * s.slot_s
    for job, entry in case.pairs:
        if (entry.start_s - s.start_s) % s.slot_s or not s.start_s <= entry.start_s < end_s:
            yield Violation("window", job.job_id, f"start {entry.start_s} is not a slot of the horizon")
        if job.state == "waiting" and entry.start_s < max(job.submit_s, job.earliest_s or 0.0):
            yield Violation(
                "window", job.job_id, f"starts before {time_text(max(job.submit_s, job.earliest_s or 0.0))}"
            )
        if job.state == "waiting" and job.deadline_s is not None and entry.end_s > job.deadline_s:
            yield Violation("deadline", job.job_id, f"ends after {time_text(job.deadline_s)}, when its value is 0")
        _, mode = case.kind_mode(entry)
        if mode is None:
            continue
        need_s = job.duration_s / gpu_speed(mode, case.site.job_classes.get(job.job_class))
        due_s = max(1, math.ceil(need_s / s.slot_s - 1e-9)) * s.slot_s
        stops = job.job_id in case.waiting and job.state == "running" and entry.end_s > entry.start_s
        if entry.end_s - entry.start_s != due_s and not (stops and entry.end_s - entry.start_s < due_s):
            yield Violation(
                "duration", job.job_id, f"is planned for {entry.end_s - entry.start_s} s; its work takes {due_s} s"
            )


def _gang(case: _Case) -> Iterator[Violation]:
    """All GPUs of the job, in one hall, on nodes of its type that exist; on one node, or on whole nodes."""
    for job, entry in case.pairs:
        placed = 0
        nodes: list[str] = []
        for placement in entry.placements:
            rack = case.racks.get(placement.rack)
            names = expand(placement.nodes)
            placed += len(names) * placement.gpus_per_node
            nodes += names
            if rack is None or rack.zone.split("/")[0] != entry.hall:
                yield Violation("gang", job.job_id, f"rack {placement.rack} is not in hall {entry.hall}")
            elif rack.node_type != entry.node_type:
                yield Violation(
                    "eligibility", job.job_id, f"rack {rack.zone} holds {rack.node_type}, not {entry.node_type}"
                )
            elif missing := [name for name in names if name not in rack.nodes]:
                yield Violation("gang", job.job_id, f"{missing[0]} is not in rack {rack.zone}")
        if placed != job.gpus or entry.gpus != job.gpus:
            yield Violation(
                "gang", job.job_id, f"is placed on {placed} GPUs and planned with {entry.gpus}; needs {job.gpus}"
            )
        kind, _ = case.kind_mode(entry)
        if kind is not None and job.state == "waiting" and len(nodes) != -(-job.gpus // kind.gpus):
            yield Violation("gang", job.job_id, f"uses {len(nodes)} nodes; needs {-(-job.gpus // kind.gpus)}")
        if len(set(nodes)) != len(nodes):
            yield Violation("gang", job.job_id, "uses a node twice")


def _running(case: _Case) -> Iterator[Violation]:
    """Running jobs stay where they are; only one that may be preempted, or is shed, stops."""
    assigned = {job.job_id for job, _ in case.pairs}
    for job in case.jobs.values():
        if job.state == "running" and job.job_id not in assigned and not job.preemptible:
            code = case.waiting[job.job_id].code if job.job_id in case.waiting else ""
            if code != "shed":
                yield Violation("running", job.job_id, f"is stopped with code {code!r} and may not be preempted")
    for job, entry in case.pairs:
        if job.state == "running":
            yield from _stays(case, job, entry)
        if entry.running != (job.state == "running"):
            yield Violation("running", job.job_id, f"is {job.state} but planned as running={entry.running}")


def _stays(case: _Case, job: Job, entry: Assignment) -> Iterator[Violation]:
    if entry.hall != job.hall or entry.start_s != case.snapshot.start_s:
        yield Violation(
            "running", job.job_id, f"runs in {job.hall} now, but is planned in {entry.hall} from {entry.start_s}"
        )
    nodes = sorted(name for placement in entry.placements for name in expand(placement.nodes))
    if job.nodes and nodes != sorted(expand(job.nodes)[: job.gpus]):
        yield Violation("running", job.job_id, f"runs on {job.nodes}, but is planned on other nodes")


def _gpus(case: _Case) -> Iterator[Violation]:
    """No node carries more GPUs than it has, and nothing starts on a node that is down or without telemetry."""
    closed = set(case.snapshot.down_nodes) | set(case.snapshot.stale_nodes)
    events: dict[str, list[tuple[int, int]]] = {}
    for job, entry in case.pairs:
        first, last = slot_span(case.snapshot, entry)
        for placement in entry.placements:
            for node in expand(placement.nodes):
                events.setdefault(node, []).extend(((first, placement.gpus_per_node), (last, -placement.gpus_per_node)))
                if node in closed and job.state == "waiting":
                    yield Violation(
                        "gpus", node, f"job {job.job_id} starts on a node that is down or without telemetry"
                    )
    size = {node: case.site.node_types[r.node_type].gpus for r in case.racks.values() for node in r.nodes}
    for node, changes in events.items():
        used = 0
        for slot, change in sorted(changes):
            used += change
            if used > size.get(node, 0):
                yield Violation("gpus", node, f"{used} GPUs in use at {case.when(slot)}; it has {size.get(node, 0)}")
                break


def _over(case: _Case, kind: str, zone: str, load_w: Floats, limit_w: Floats) -> Iterator[Violation]:
    over = load_w - limit_w
    slot = int(np.argmax(over))
    if over[slot] > _WATT:
        count = int((over > _WATT).sum())
        text = f"{load_w[slot]:.0f} W at {case.when(slot)}; the limit is {limit_w[slot]:.0f} W ({count} slots over)"
        yield Violation(kind, zone, text)


def _level(case: _Case, zone: str) -> str:
    if zone == case.site.name:
        return "site"
    if any(feed.zone == zone for feed in case.site.feeds):
        return "feed"
    return ("hall", "row", "rack")[zone.count("/")]


def _power(case: _Case, loads: Loads, silent: Loads | None) -> Iterator[Violation]:
    """No zone is over its budget in any slot: racks, rows, halls and feeds in IT power, the site at the meter."""
    for zone, budget_w in zone_budgets(case.snapshot).items():
        limit_w = budget_w if silent is None else np.maximum(budget_w, silent.zone_w[zone])
        yield from _over(case, f"power_{_level(case, zone)}", zone, loads.zone_w[zone], limit_w)


def _cooling(case: _Case, loads: Loads, silent: Loads | None) -> Iterator[Violation]:
    for zone, overview in loads.halls.items():
        for medium, heat_w in overview.heat_w.items():
            limit_w = overview.capacity_w[medium]
            if silent is not None:
                limit_w = np.maximum(limit_w, silent.halls[zone].heat_w[medium])
            yield from _over(case, "cooling", f"{zone} ({medium})", heat_w, limit_w)


def _ramps(case: _Case) -> Iterator[Violation]:
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
            yield from _over(case, f"ramp_{way}", case.site.name, chosen, limit_w)


def _now_w(case: _Case, job: Job) -> float:
    """Return the present draw of each GPU of a running job, in W."""
    modes = [(k, m) for k in case.site.node_types.values() for m in k.modes if m.name == job.mode]
    own = [(k, m) for k, m in modes if job.node_type in (None, k.name)]
    return max((gpu_power_w(k, m, case.site.job_classes.get(job.job_class)) for k, m in own), default=0.0)


def _zones(case: _Case, loads: Loads) -> Iterator[Violation]:
    """The zones' figures in the plan equal the loads of its assignments."""
    for entry in case.plan.zones:
        load_w = loads.zone_w.get(entry.zone)
        if load_w is None or len(entry.planned_w) != case.snapshot.slots:
            yield Violation("zones", entry.zone, "is no zone of the site, or has not one value per slot")
        elif np.abs(np.array(entry.planned_w) - load_w).max() > 1.0:
            yield Violation("zones", entry.zone, "planned_w differs from the load of the assignments")


def _value(case: _Case) -> Iterator[Violation]:
    try:
        value, bound = value_and_bound(case.plan)
    except (ValueError, ArithmeticError, PowerhallError) as error:
        yield Violation("certificate", "plan", str(error))
        return
    if value != case.plan.value:
        yield Violation("value", "plan", f"is {case.plan.value} in the plan; its assignments give {value}")
    if value > bound:
        yield Violation("bound", "plan", f"has value {value}, more than the {bound} that its certificate proves")
    if bound > case.plan.bound:
        yield Violation("bound", "plan", f"is {case.plan.bound} in the plan; its certificate proves only {bound}")


_CHECKS: tuple[Check, ...] = (_identity, _jobs, _eligibility, _residency, _modes, _times, _gang, _running, _gpus)


def verify_plan(plan: Plan) -> list[Violation]:
    """Return all violations of a plan; an empty list is a verified plan.

    Nodes without telemetry count at their maximum. Where they alone exceed a limit, no plan can hold it: such a zone
    may not get additional load.
    """
    case = _Case(plan)
    if broken_site := list(_site(case)):
        return broken_site
    found = [violation for check in _CHECKS for violation in check(case)]
    if lacking := storage_checks(plan, None):
        return found + [Violation(*broken) for broken in lacking]
    loads = plan_loads(plan)
    silent = loads_of(plan.snapshot, ()) if plan.snapshot.stale_nodes else None
    found += _power(case, loads, silent)
    found += _cooling(case, loads, silent)
    found += _ramps(case)
    found += _zones(case, loads)
    found += [Violation(*broken) for broken in storage_checks(plan, loads)]
    return found + (list(_value(case)) if not found else [])
