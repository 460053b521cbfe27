"""Texts of the workload managers: skips, jobs left out, reasons in comments and events. No code reads them back."""

from powerhall.plan.plan import Assignment, Waiting
from powerhall_optimizer.schedulers.skip_reasons import LeftOut, LeftOutCause, Skip, SkipReason

__all__ = [
    "ended_plan_text",
    "left_out_text",
    "no_plan_text",
    "not_planned_text",
    "older_plan_text",
    "other_site_text",
    "planned_text",
    "runs_text",
    "skip_text",
    "waits_text",
]

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
    Skip.NOT_PINNED: "is not pinned: Slurm refused the nodes that it had",
    Skip.NOT_OURS: "{value}: left to Slurm",
    Skip.ENLARGED: "asks for {count} GPUs now, the plan has {planned}: the next plan places it",
    Skip.OTHER_NODES: "may not start on {value} any more: the next plan places it",
    Skip.NOT_CONFINED: "not started: its pods could run outside the planned hall and node type: {value}",
    Skip.JOB_DIFFERS: "is not the job that was planned (made anew, or of another size): the next plan has it",
    Skip.NOT_GIVEN_BACK: "not started: power that this plan gives back first was not given back",
    Skip.TAKEN_SINCE: "not started: others took {value} since the plan's snapshot: the next plan counts them",
    Skip.NO_ROOM: "not released: {value}",
    Skip.NOT_BEFORE: "not released: may not start before {value}",
    Skip.NO_LICENCE: "this cluster has no such licence: the budget is not held by Slurm",
    Skip.NOT_IN_TREE: "limits held by the plan alone, since layers of Slurm must nest at one depth: {value}",
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
    LeftOutCause.UNKNOWN_NODES: "runs on nodes that are not known ({value}): counted, not planned",
    LeftOutCause.NO_ID: "has no id of its own ({value}): counted where it runs, not planned",
    LeftOutCause.SEVERAL_POOLS: "runs on {value}, in several halls or on several node types",
    LeftOutCause.ACCOUNT_LIMIT: "waits for a limit of its account or quality of service: {value}",
    LeftOutCause.PARTITION: "its partition does not start it: {value}",
    LeftOutCause.RESERVATION: "runs in a reservation: {value}",
    LeftOutCause.PART_OF_GPU: "asks for parts of GPUs that no node type of the site offers as one (gpu_parts, mig)",
    LeftOutCause.SEVERAL_SHARES: "asks for parts that are other shares of a GPU on some nodes than on others",
    LeftOutCause.NODE_RANGE: "asks for {value} nodes: Slurm chooses how many",
    LeftOutCause.SPREAD: "asks for {value}: Slurm places them",
    LeftOutCause.SOME_NODES: "asks for {value} and other nodes beside: Slurm chooses them",
    LeftOutCause.FEATURES: "asks for features {value}: Slurm places it",
    LeftOutCause.NO_NODES: "no node of the site may take it",
    LeftOutCause.NOT_CONFINED: "its pods cannot be kept in one hall and on one node type: {value}",
    LeftOutCause.REASON: "waits for another reason: {value}",
    LeftOutCause.SLICES: "asks for slices of GPUs or claims devices: counted where it runs, not planned",
    LeftOutCause.PART_OF_JOB: "is a part of {name}, which stops and starts it",
    LeftOutCause.NO_SUSPEND: "is not stopped and started: {value}: counted where it runs, not planned",
    LeftOutCause.SHAPE: "asks for {value}: counted where it runs, not planned",
    LeftOutCause.NOT_LISTED: "cannot be read, counted where they run: {value}",
    LeftOutCause.JOB_CHANGED: "suspend or queue was changed by somebody else: left alone until {name} is removed",
    LeftOutCause.ENDING: "has ended or was stopped, and its pods are still ending",
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


def not_planned_text(reason: str) -> str:
    """Write on a waiting job why no plan can have it."""
    return f"not planned: {reason}"[:500]


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


def older_plan_text(plan_id: str, older_s: float, newest_id: str) -> str:
    """Write the refusal of a plan that is older than one that was written already."""
    return f"the plan {plan_id[:12]} is {older_s:.0f} s older than {newest_id[:12]}, which was written already"


def other_site_text(plan_id: str, site: str, home: str) -> str:
    """Write the refusal of a plan of another site."""
    return f"the plan {plan_id[:12]} is of site {site}; this cluster is of site {home}"


def no_plan_text(age_s: float) -> str:
    """Write why a waiting job is released though no plan starts it."""
    return f"released: the newest plan is {age_s:.0f} s old, and nobody renews it"
