"""Remaining work: from progress where the queue reports it, else from durations of earlier jobs of the class.

Declared durations are longer than needed. The share of its declared work that each finished job took is kept per class.
A waiting job is planned with a high quantile of these shares; a running job with the same quantile of the shares above
its own progress. No job is planned longer than declared.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from powerhall.jobs import Job
from powerhall_optimizer.inputs.forecast import History

__all__ = ["expected_jobs", "expected_left_s"]

_LEAST_JOBS = 20
"""Finished jobs of a class that a forecast needs, at least."""
_LEAST_LONGER = 5


def expected_left_s(left_s: float, declared_s: float, parts: Sequence[float], share: float) -> float:
    """Return the work in s to plan for, so that `share` of similar jobs take no longer; at most the declared work."""
    done = 1.0 - min(1.0, left_s / declared_s)
    longer = [part for part in parts if part > done]
    if len(parts) < _LEAST_JOBS or len(longer) < _LEAST_LONGER:
        return left_s
    part = float(np.quantile(longer, share, method="higher"))
    return min(left_s, max(1.0, (part - done) * declared_s))


def expected_jobs(history: History, jobs: Sequence[Job], share: float) -> tuple[Job, ...]:
    """Return the jobs with their expected work; a `share` of 1 leaves them unchanged."""
    if share >= 1.0:
        return tuple(jobs)
    parts = {name: [sample.factor for sample in samples] for name, samples in history.durations.items()}
    found: list[Job] = []
    for job in jobs:
        last = history.progress.get(job.job_id)
        declared_s = job.duration_s if job.state == "waiting" or last is None else max(last.total_s, job.duration_s)
        left_s = expected_left_s(job.duration_s, declared_s, parts.get(job.job_class, ()), share)
        found.append(msgspec.structs.replace(job, duration_s=left_s) if left_s < job.duration_s else job)
    return tuple(found)
