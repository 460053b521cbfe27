"""Checks of each job's decision: where it may run, in which mode, when, and that each is decided once."""

import math
from collections.abc import Iterator

from powerhall.hostlist import expand
from powerhall.plan.plan import gpu_power_w, gpu_speed
from powerhall_optimizer.verify.case import Check, PlanCase, Violation
from powerhall_optimizer.verify.times import time_text

__all__ = ["JOB_CHECKS"]


def _jobs(case: PlanCase) -> Iterator[Violation]:
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
        elif job_id in assigned and (waiting.code != "shed" or case.jobs[job_id].state != "running"):
            yield Violation("jobs", job_id, "both runs and waits")
    if len(case.waiting) != len(case.plan.waiting):
        yield Violation("jobs", "waiting", "a job waits twice")
    for job_id in case.jobs.keys() - assigned - case.waiting.keys():
        yield Violation("jobs", job_id, "is neither assigned nor waiting")


def _eligibility(case: PlanCase) -> Iterator[Violation]:
    for job, entry in case.pairs:
        if job.halls and entry.hall not in job.halls:
            yield Violation("eligibility", job.job_id, f"runs in {entry.hall}; may use {', '.join(job.halls)}")
        if job.node_types and entry.node_type not in job.node_types:
            yield Violation(
                "eligibility", job.job_id, f"runs on {entry.node_type}; may use {', '.join(job.node_types)}"
            )


def _allowed_nodes(case: PlanCase) -> Iterator[Violation]:
    for job, entry in case.pairs:
        if job.state != "waiting" or job.allowed_nodes is None:
            continue
        may = set(expand(job.allowed_nodes))
        wrong = [node for placement in entry.placements for node in expand(placement.nodes) if node not in may]
        if wrong:
            yield Violation("eligibility", job.job_id, f"runs on {wrong[0]}; may use {job.allowed_nodes}")


def _residency(case: PlanCase) -> Iterator[Violation]:
    for job, _ in case.pairs:
        if job.sites and case.site.name not in job.sites:
            yield Violation("residency", job.job_id, f"may run only at {', '.join(job.sites)}, not at {case.site.name}")
        if job.state == "running" and job.site not in (None, case.site.name):
            yield Violation("running", job.job_id, f"runs at {job.site}, not at {case.site.name}")


def _modes(case: PlanCase) -> Iterator[Violation]:
    """The mode exists, and the planned draw follows from the mode and the job's class."""
    for job, entry in case.pairs:
        kind, mode = case.kind_mode(entry)
        if kind is None or mode is None:
            yield Violation("mode", job.job_id, f"{entry.node_type} has no mode {entry.mode!r}")
            continue
        due_w = gpu_power_w(kind, mode, case.site.job_classes.get(job.job_class))
        if not abs(entry.gpu_power_w - due_w) <= 1e-9 * due_w:
            yield Violation(
                "mode", job.job_id, f"is planned at {entry.gpu_power_w:.1f} W a GPU; {entry.mode} draws {due_w:.1f} W"
            )
        now = next((m for m in kind.modes if m.name == job.mode), None)
        if job.state == "running" and not case.snapshot.allow_raises and now and mode.gpu_power_w > now.gpu_power_w:
            yield Violation("mode", job.job_id, f"is raised from {now.name} to {mode.name} while no raises are allowed")


def _held(case: PlanCase) -> Iterator[Violation]:
    """Nothing starts while starts are held, and running jobs that are left out count: held, or their nodes at most."""
    for job, _ in case.pairs:
        if job.state == "waiting" and case.snapshot.starts_held:
            yield Violation("held", job.job_id, f"starts although nothing may: {case.snapshot.starts_held}")
    at_most = set(case.snapshot.stale_nodes)
    held = {(entry.job_id, node) for entry in case.snapshot.held for node in expand(entry.nodes)}
    known = {node for rack in case.racks.values() for node in rack.nodes}
    for entry in case.snapshot.left_out:
        try:
            nodes = expand(entry.nodes) if entry.running and entry.nodes else ()
        except ValueError:
            nodes = ()
        for node in nodes:
            is_none = entry.gpus_on_nodes and dict(zip(nodes, entry.gpus_on_nodes, strict=False)).get(node) == 0
            if node in known and node not in at_most and (entry.job_id, node) not in held and not is_none:
                yield Violation("held", node, f"runs job {entry.job_id}, which is left out, and does not count it")


def _times(case: PlanCase) -> Iterator[Violation]:
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


JOB_CHECKS: tuple[Check, ...] = (_jobs, _eligibility, _allowed_nodes, _residency, _modes, _held, _times)
