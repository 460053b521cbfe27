"""Whether a job is still what the plan saw: compare before a write, job by job."""

from powerhall.hostlist import expand
from powerhall.jobs.model import Job
from powerhall.plan.plan import Assignment, Plan
from powerhall_optimizer.schedulers.base import Queue
from powerhall_optimizer.schedulers.skip_reasons import Skip, SkipReason
from powerhall_optimizer.schedulers.slurm.records import Record

__all__ = ["SnapshotMatch"]


class SnapshotMatch:
    """The jobs of a plan beside those of the queue as it is now."""

    def __init__(self, plan: Plan, queue: Queue) -> None:
        self._seen = {job.job_id: job for job in plan.snapshot.jobs}
        self._now = {job.job_id: job for job in queue.jobs}
        self._left_out = queue.left_out
        self._planned = {entry.job_id: entry for entry in plan.assignments}

    def change_of(self, job_id: str, record: Record | None) -> SkipReason | None:
        """Return what changed about a job since the plan saw it; None where the plan still fits it.

        A node list of the job's own is never overwritten, so that it need not fit, and nothing of a held job is.
        """
        if record is not None and record.is_held:
            return None
        seen, now = self._seen.get(job_id), self._now.get(job_id)
        if seen is None:
            return None
        if now is None:
            why = self._left_out.get(job_id)
            return None if why is None else SkipReason(Skip.NOT_OURS, value=why)
        if (now.gpu_share, _gpus(now)) != (seen.gpu_share, _gpus(seen)):
            return SkipReason(Skip.ENLARGED, count=now.gpus, planned=seen.gpus)
        planned = self._planned.get(job_id)
        if record is not None and record.required_nodes:
            return None
        return None if planned is None else _wrong_nodes(now, planned)


def _gpus(job: Job) -> int:
    """Return the GPUs of a job; one that takes a part of a GPU may have none of its own in a plan."""
    return job.gpus if job.gpu_share is None else 1


def _wrong_nodes(now: Job, planned: Assignment) -> SkipReason | None:
    if now.state != "waiting":
        return None
    nodes = [node for placement in planned.placements for node in expand(placement.nodes)]
    allowed = None if now.allowed_nodes is None else set(expand(now.allowed_nodes))
    wrong = [node for node in nodes if allowed is not None and node not in allowed]
    if now.node_types and planned.node_type not in now.node_types:
        wrong = nodes
    return SkipReason(Skip.OTHER_NODES, value=wrong[0]) if wrong else None
