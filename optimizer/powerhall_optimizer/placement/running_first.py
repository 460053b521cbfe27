"""Place running jobs where rows, racks or feeds do not carry the modes that the solver chose for them.

The solver knows rows and racks only as a sum. The running jobs as they were retained hold every limit together, so they
are placed first; each then takes the solver's mode where that still fits. Waiting jobs that no longer fit beside them
are returned, to be placed elsewhere.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.placement.placer import Placer
from powerhall_optimizer.problem.arrays import Schedule

__all__ = ["place_running_jobs"]

Homeless = tuple[int, int, int]
"""Value, job and option of a job that must find another option."""


def place_running_jobs(placer: Placer, retained: Schedule) -> list[Homeless]:
    """Place the running jobs; return waiting jobs that were scheduled and must find another option."""
    is_running = np.array([job.state == "running" for job in placer.built.jobs], bool)
    scheduled = np.flatnonzero(placer.option >= 0)
    running = scheduled[is_running[scheduled]].tolist()
    if not _stopped(placer, retained, is_running) and all(
        placer.put(job, int(placer.option[job]), int(placer.start[job])) for job in sorted(running, key=placer.turn)
    ):
        return []
    wanted = {job: (int(placer.option[job]), int(placer.start[job])) for job in scheduled.tolist()}
    for job in wanted:
        placer.drop(job)
    kept = np.flatnonzero(is_running & (retained.option >= 0)).tolist()
    _place_kept(placer, retained, kept, wanted)
    return _reschedule(placer, [job for job in wanted if not is_running[job]], wanted)


def _stopped(placer: Placer, retained: Schedule, is_running: npt.NDArray[np.bool_]) -> bool:
    """Whether the schedule stops a retained job that may not be stopped."""
    missing = np.flatnonzero(is_running & (retained.option >= 0) & (placer.option < 0)).tolist()
    return any(not placer.built.jobs[job].preemptible for job in missing)


def _place_kept(placer: Placer, retained: Schedule, kept: Sequence[int], wanted: dict[int, tuple[int, int]]) -> None:
    """Place the retained jobs as retained, then in the solver's modes where those fit, the most valuable first."""
    for job in kept:
        placer.put(job, int(retained.option[job]), int(retained.start[job]))
    gains = {job: placer.gain_of(job, *wanted[job]) for job in kept if job in wanted and placer.option[job] >= 0}
    for job in sorted(gains, key=lambda job: (-gains[job], job)):
        option, start = wanted[job]
        before = int(placer.option[job]), int(placer.start[job])
        if (option, start) == before:
            continue
        placer.drop(job)
        if not (placer.fits(option, start) and placer.put(job, option, start)):
            placer.put(job, *before)
    for job in kept:
        if job not in wanted and placer.option[job] >= 0 and placer.built.jobs[job].preemptible:
            placer.drop(job)  # the solver stops it for others


def _reschedule(placer: Placer, waiting: Sequence[int], wanted: dict[int, tuple[int, int]]) -> list[Homeless]:
    """Put waiting jobs back on the schedule, the most valuable first; return those that do not fit any more."""
    homeless: list[Homeless] = []
    gains = {job: placer.gain_of(job, *wanted[job]) for job in waiting}
    for job in sorted(waiting, key=lambda job: (-gains[job], job)):
        option, start = wanted[job]
        if placer.fits(option, start):
            placer.schedule(job, option, start)
        else:
            homeless.append((gains[job], job, option))
    return homeless
