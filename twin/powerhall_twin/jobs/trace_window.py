"""A window of a job trace, shifted to the site's time."""

from collections.abc import Iterable, Sequence

import msgspec

from powerhall.jobs.model import Job
from powerhall.runtime.errors import Rejected

__all__ = ["busiest_start_s", "window"]

_STEP_S = 900.0


def busiest_start_s(jobs: Sequence[Job], length_s: float) -> float:
    """Return the start of the window in which the most GPU time is submitted, on a grid of 15 minutes.

    A job counts with at most the length of the window, so that a few jobs of weeks do not outweigh a busy day. The
    window begins with a submission, so that what was submitted has time to run.
    """
    first_s = min(job.submit_s for job in jobs) // _STEP_S * _STEP_S
    bins: dict[int, float] = {}
    for job in jobs:
        at = int((job.submit_s - first_s) // _STEP_S)
        bins[at] = bins.get(at, 0.0) + job.gpus * min(job.duration_s, length_s)
    width = max(1, round(length_s / _STEP_S))
    best, best_sum, behind, within = 0, -1.0, 0, 0.0
    filled = sorted(bins)
    for begin in filled:
        while behind < len(filled) and filled[behind] < begin + width:
            within += bins[filled[behind]]
            behind += 1
        if within > best_sum:
            best, best_sum = begin, within
        within -= bins[begin]
    return first_s + best * _STEP_S


def window(jobs: Iterable[Job], start_s: float, length_s: float, *, at_s: float, preemptible: bool) -> tuple[Job, ...]:
    """Return the jobs submitted in the window, shifted so that it starts at `at_s`; no job raises Rejected."""
    shift_s = at_s - start_s
    found = []
    for job in jobs:
        if not start_s <= job.submit_s < start_s + length_s:
            continue
        later = {
            name: None if getattr(job, name) is None else getattr(job, name) + shift_s
            for name in ("earliest_s", "deadline_s")
        }
        moved = msgspec.structs.replace(job, submit_s=job.submit_s + shift_s, state="waiting", **later)
        if preemptible:
            moved = msgspec.structs.replace(moved, preemptible=True, checkpoint_cost_s=max(60.0, job.checkpoint_cost_s))
        found.append(moved)
    if not found:
        raise Rejected(f"trace: no job was submitted in the {length_s / 3600:g} h from {start_s:.0f}")
    return tuple(found)
