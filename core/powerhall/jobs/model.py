"""A job of the queue, and the checks of every list of jobs, whatever its source."""

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from powerhall.runtime.errors import Rejected

__all__ = ["Job", "check_jobs"]


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One job: a gang of `gpus` GPUs of one node type in one hall, all at once or not at all.

    `duration_s` is the remaining work: seconds at the fastest mode's speed. `halls`, `node_types` and `sites` limit
    where it may run (empty: anywhere): a filter (data residency), not a preference. Times are seconds since the
    epoch. A job of a node's GPUs or fewer stays on one node; a larger one takes whole nodes.
    A running job has `state="running"`, with its hall, node type, mode, nodes (host list) and start, and its site where
    several sites are planned together.
    """

    job_id: str
    gpus: int
    duration_s: float
    submit_s: float = 0.0
    job_class: str = "default"
    weight: float = 1.0
    node_types: tuple[str, ...] = ()
    halls: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    earliest_s: float | None = None
    deadline_s: float | None = None
    preemptible: bool = False
    checkpoint_cost_s: float = 0.0
    state: Literal["waiting", "running"] = "waiting"
    hall: str | None = None
    node_type: str | None = None
    mode: str | None = None
    nodes: str | None = None
    start_s: float | None = None
    site: str | None = None


def check_jobs(jobs: Iterable[Job], source: str) -> tuple[Job, ...]:
    """Return the jobs if each is sound and no id repeats; otherwise raise Rejected naming source, job, field, value."""
    checked: list[Job] = []
    seen: set[str] = set()
    for job in jobs:
        _check(job, source)
        if job.job_id in seen:
            raise Rejected.field(source, "job_id", job.job_id, "must be unique")
        seen.add(job.job_id)
        checked.append(job)
    return tuple(checked)


def _check(job: Job, source: str) -> None:
    def refuse(field: str, value: object, allowed: str) -> Rejected:
        return Rejected.field(source, f"job {job.job_id}: {field}", value, allowed)

    if not job.job_id or not job.job_id.isprintable():
        raise refuse("job_id", job.job_id, "must be printable text")
    if job.gpus < 1:
        raise refuse("gpus", job.gpus, "must be at least 1")
    if not (math.isfinite(job.duration_s) and job.duration_s > 0):
        raise refuse("duration_s", job.duration_s, "must be a positive number of seconds")
    if not (math.isfinite(job.weight) and 0 < job.weight <= 1e6):
        raise refuse("weight", job.weight, "must be above 0 and at most 1000000")
    if not (math.isfinite(job.checkpoint_cost_s) and job.checkpoint_cost_s >= 0):
        raise refuse("checkpoint_cost_s", job.checkpoint_cost_s, "must not be negative")
    for field in ("submit_s", "earliest_s", "deadline_s", "start_s"):
        value = getattr(job, field)
        if value is not None and not math.isfinite(value):
            raise refuse(field, value, "must be seconds since the epoch")
    if job.state == "running" and (job.hall is None or job.mode is None or job.start_s is None):
        raise refuse("state", job.state, "a running job must give its hall, mode and start_s")
