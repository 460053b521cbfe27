"""Texts of the workload managers: skips, jobs left out, reasons in comments and events. No code reads them back."""

from powerhall.plan.plan import Assignment, Waiting
from powerhall_optimizer.schedulers.skip_reasons import LeftOut, LeftOutCause, Skip, SkipReason

__all__ = ["ended_plan_text", "left_out_text", "planned_text", "runs_text", "skip_text", "waits_text"]

NO_LEADER = "kubernetes: another optimizer took the lease just now: this one writes nothing"
_SKIPS = {
    Skip.NOT_THERE: "is not there, or not managed",
    Skip.ENDED: "has ended",
    Skip.GONE: "no longer waits or runs",
    Skip.WAITS_ALREADY: "waits already",
    Skip.WAITS_AGAIN: "waits again: the next plan places it",
    Skip.RUNS_ALREADY: "runs already",
    Skip.HELD_BY_USER: "held by its user",
    Skip.HELD_BY_ADMIN: "held by an administrator",
    Skip.PREEMPT_OFF: "the plan stops it, slurm.preempt is off: left running",
    Skip.JOB_CHANGED: "suspend or queue was changed by somebody else: left alone until {name} is removed",
    Skip.FIELD_CHANGED: "{name} was changed by somebody else to {value}: left alone",
    Skip.ASKED_BY_USER: "asks for {value} by itself: left alone",
    Skip.NODE_COUNT: "asks for {count} nodes, planned on {planned}: not pinned",
    Skip.KUEUE_PREEMPTS: "runs in Kueue's queue {name}: Kueue must preempt it",
    Skip.NO_LICENCE: "this cluster has no such licence: the budget is not held by Slurm",
    Skip.NO_QUOTA: "has no resource {name}",
    Skip.NO_SUSPEND_PROGRAM: "slurm.conf names no SuspendProgram",
}
_LEFT_OUT = {
    LeftOutCause.NO_GPUS: "asks for no {name}",
    LeftOutCause.HETEROGENEOUS: "is one part of a heterogeneous job",
    LeftOutCause.HELD_BY_USER: "held by its user",
    LeftOutCause.HELD_BY_ADMIN: "held by an administrator",
    LeftOutCause.DEPENDENCY: "waits for another job",
    LeftOutCause.DEPENDENCY_FAILED: "waits for a job that failed",
    LeftOutCause.FOREIGN_NODES: "runs on {value}, which site {name} does not have",
    LeftOutCause.SEVERAL_POOLS: "runs on {value}, in several halls or on several node types",
    LeftOutCause.UNKNOWN_HALL: "runs in hall {value}: annotate it with {name}, a hall with one node type",
    LeftOutCause.BAD_FIELD: "{value}",
}


def skip_text(reason: SkipReason) -> str:
    """Write why something of the plan was left alone."""
    return _SKIPS[reason.code].format(
        name=reason.name, value=reason.value or "none", count=reason.count, planned=reason.planned
    )


def left_out_text(found: LeftOut) -> str:
    """Write why a job is not offered to the planner."""
    return _LEFT_OUT[found.cause].format(name=found.name, value=found.value)


def planned_text(job: Assignment) -> str:
    """Write where a job is planned, where the plan gives no other reason."""
    return job.reason or f"planned in {job.hall} at mode {job.mode}"


def runs_text(job: Assignment) -> str:
    """Write where a job runs, where the plan gives no other reason."""
    return job.reason or f"runs in {job.hall} at mode {job.mode}"


def waits_text(job: Waiting) -> str:
    """Write why a job waits."""
    return job.reason or f"waits: {job.code}"


def ended_plan_text(plan_id: str, ended_s: float) -> str:
    """Write the refusal of a plan whose horizon is over."""
    return f"the plan {plan_id[:12]} ended {ended_s:.0f} s ago: make a new one"
