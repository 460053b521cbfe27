"""Jobs that a plan leaves out because it cannot be planned with what they say; the rest of the queue goes on."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from powerhall.jobs.model import Job, check_job
from powerhall.runtime.errors import Rejected

__all__ = ["JobList", "LeftOut", "LeftOutCode", "sound_jobs"]


class LeftOutCode(StrEnum):
    """Machine-readable reason why a job is left out."""

    FIELD = "field"
    """A field of it is wrong or missing."""
    DUPLICATE = "duplicate"
    """Another job of the queue has its id."""
    PLACE = "place"
    """It names a hall, node type, node or mode that the site does not have, or fits nowhere."""
    COUNTED = "counted"
    """It runs where no job of a plan can: over several halls or node types."""
    SCHEDULER = "scheduler"
    """The scheduler's queue reader does not offer it."""


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job that is left out, and why.

    One that runs is still in the power: its GPUs at their worst where it is known on which nodes they are
    (`gpus_on_nodes`, in the order of `nodes`), otherwise its nodes (host list, as far as known) at their maximum.
    """

    job_id: str
    code: str
    reason: str
    running: bool = False
    gpus: int = 0
    hall: str | None = None
    nodes: str | None = None
    gpus_on_nodes: tuple[int, ...] = ()
    project: str | None = None
    tenant: str | None = None


class JobList(msgspec.Struct, frozen=True):
    """A queue as read: the jobs to plan, those that are left out, and what the reader skipped or assumed, in lines."""

    jobs: tuple[Job, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


def sound_jobs(jobs: Iterable[Job], source: str) -> JobList:
    """Return the jobs that are sound and have an id of their own; of a repeated id a running job is kept."""
    kept: dict[str, Job] = {}
    left_out: list[LeftOut] = []
    for job in jobs:
        try:
            check_job(job, source)
        except Rejected as error:
            left_out.append(left_out_job(job, LeftOutCode.FIELD, error, source))
            continue
        before = kept.get(job.job_id)
        if before is not None:
            lost = before if before.state == "waiting" and job.state == "running" else job
            refusal = Rejected.field(source, "job_id", job.job_id, "must be unique")
            left_out.append(left_out_job(lost, LeftOutCode.DUPLICATE, refusal, source))
            if lost is job:
                continue
        kept[job.job_id] = job
    return JobList(tuple(kept.values()), tuple(left_out))


def left_out_job(job: Job, code: LeftOutCode, error: Rejected, source: str) -> LeftOut:
    """Return the entry of a job that was refused."""
    running = job.state == "running"
    reason = str(error).removeprefix(f"{source}: ").removeprefix(f"job {job.job_id}: ")
    gpus = max(0, job.gpus)
    place = (job.hall, job.nodes, job.gpus_on_nodes) if running else (None, None, ())
    return LeftOut(job.job_id, code, reason, running, gpus, *place, job.project, job.tenant)
