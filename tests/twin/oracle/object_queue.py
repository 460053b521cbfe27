"""The queue: submitted jobs and the remaining work of each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
from object_cluster import Cluster, Run

from powerhall.jobs.model import Job

__all__ = ["JobRecord", "Queue"]


@dataclass(slots=True)
class JobRecord:
    """Progress of a job; times are None until they happen, `left_s` is remaining work at the fastest mode's speed."""

    job: Job
    left_s: float
    started_s: float | None = None
    ended_s: float | None = None
    stops: int = 0


@dataclass(slots=True)
class Queue:
    """All jobs of a simulation by id, in order of submission; a job is visible from its submission on."""

    records: dict[str, JobRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, jobs: Iterable[Job]) -> "Queue":
        """Return a queue of jobs that have not started."""
        ordered = sorted(jobs, key=lambda job: (job.submit_s, job.job_id))
        return cls({job.job_id: JobRecord(job, job.duration_s) for job in ordered})

    def waiting(self, cluster: Cluster, now_s: float) -> Iterator[JobRecord]:
        """Yield the submitted jobs that neither run nor have ended, oldest first."""
        for job_id, record in self.records.items():
            if record.job.submit_s <= now_s and record.ended_s is None and job_id not in cluster.runs:
                yield record

    def next_submit_s(self, now_s: float) -> float | None:
        """Return when the next job will be submitted."""
        return next((r.job.submit_s for r in self.records.values() if r.job.submit_s > now_s), None)

    def stopped(self, run: Run) -> None:
        """Requeue a stopped run; its work so far counts, less its checkpoint cost."""
        record = self.records[run.job.job_id]
        record.left_s = min(record.job.duration_s, run.left_s + run.job.checkpoint_cost_s)
        record.stops += 1

    def as_jobs(self, cluster: Cluster, now_s: float) -> tuple[Job, ...]:
        """Return running and waiting jobs as a workload manager lists them."""
        running = [cluster.running_job(run) for run in cluster.runs.values()]
        waiting = [msgspec.structs.replace(r.job, duration_s=max(1.0, r.left_s)) for r in self.waiting(cluster, now_s)]
        return (*running, *waiting)
