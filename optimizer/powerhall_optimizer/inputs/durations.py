"""Remaining work: from progress where the queue reports it, else from how long jobs of the class really took before.

People ask for more time than they need. Of every job that ran and left the queue, the part of its declared work that it
took is kept per class. A job is then planned with a high quantile of these parts; one that runs already with the same
quantile of those parts that are longer than what it has done so far. It is never planned longer than declared.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from powerhall.jobs import Job
from powerhall_optimizer.inputs.forecast import History

__all__ = ["expected_jobs", "expected_left_s"]

_LEAST_JOBS = 20
"""Jobs of a class that must have ended before anything is concluded from them."""
_LEAST_LONGER = 5


def expected_left_s(left_s: float, declared_s: float, parts: Sequence[float], share: float) -> float:
    """Return the work in s to plan for, so that `share` of jobs like it take no longer; at most what is declared."""
    done = 1.0 - min(1.0, left_s / declared_s)
    longer = [part for part in parts if part > done]
    if len(parts) < _LEAST_JOBS or len(longer) < _LEAST_LONGER:
        return left_s
    part = float(np.quantile(longer, share, method="higher"))
    return min(left_s, max(1.0, (part - done) * declared_s))


def expected_jobs(history: History, jobs: Sequence[Job], share: float) -> tuple[Job, ...]:
    """Return the jobs with the work that is to be expected of them; 1 leaves them as they are."""
    if share >= 1.0:
        return tuple(jobs)
    parts = {name: [sample.factor for sample in samples] for name, samples in history.lengths.items()}
    found: list[Job] = []
    for job in jobs:
        last = history.progress.get(job.job_id)
        declared_s = job.duration_s if job.state == "waiting" or last is None else max(last.total_s, job.duration_s)
        left_s = expected_left_s(job.duration_s, declared_s, parts.get(job.job_class, ()), share)
        found.append(msgspec.structs.replace(job, duration_s=left_s) if left_s < job.duration_s else job)
    return tuple(found)
