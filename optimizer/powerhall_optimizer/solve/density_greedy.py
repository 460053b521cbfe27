"""Density greedy: jobs by value density, each at its best start that fits; the fallback, without solver and numba."""

import time

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.problem.usage import add_usage, over_limit

__all__ = ["fill_by_density", "value_densities"]


def _blocked(problem: Problem, usage: Ints, option: int) -> Ints:
    """Return the number of slots before each slot in which the option would break a limit: [T + 1]."""
    over = over_limit(problem, usage, option)
    result: Ints = np.concatenate(([0], np.cumsum(over)))
    return result


def _best(problem: Problem, usage: Ints, job: int) -> tuple[int, int]:
    """Return the best option and start of a job that fit beside the used capacity, (-1, -1) when waiting is best."""
    best, found = int(problem.job_wait_value[job]), (-1, -1)
    for option in problem.options_of(job):
        values = problem.values(job, option)
        if int(values.max()) <= best:
            continue
        start = np.arange(problem.option_earliest[option], problem.option_latest[option] + 1)
        blocked = _blocked(problem, usage, option)
        end = np.minimum(start + problem.option_duration[option], problem.slots)
        values = np.where(blocked[end] == blocked[start], values, best)
        at = int(np.argmax(values))
        if int(values[at]) > best:
            best, found = int(values[at]), (option, int(start[at]))
    return found


def fill_by_density(problem: Problem, kept: Schedule, deadline_s: float) -> Schedule:
    """Add jobs to the kept ones until the monotonic clock reads `deadline_s`; always returns a feasible schedule."""
    schedule = Schedule(kept.option.copy(), kept.start.copy())
    usage = np.zeros_like(problem.capacity)

    def take(job: int) -> None:
        option, start = int(schedule.option[job]), int(schedule.start[job])
        add_usage(problem, usage, option, (start, start + int(problem.option_duration[option])))

    density = value_densities(problem).tolist()
    waiting: list[tuple[float, int]] = []
    for job in range(problem.jobs):
        if schedule.option[job] >= 0:
            take(job)
        elif len(problem.options_of(job)):
            waiting.append((-density[job], job))
    for _, job in sorted(waiting):
        if time.monotonic() > deadline_s:
            break
        schedule.option[job], schedule.start[job] = _best(problem, usage, job)
        if schedule.option[job] >= 0:
            take(job)
    return schedule


def value_densities(problem: Problem) -> npt.NDArray[np.float64]:
    """Return each job's best value per slot and share of the scarcest capacity."""
    share = np.maximum(problem.capacity.mean(axis=1), 1.0)
    counts = np.diff(problem.option_uses)
    used = np.where(counts > 0, 0.0, 1.0)
    np.maximum.at(used, np.repeat(np.arange(problem.options), counts), problem.use_amount / share[problem.use_resource])
    found = np.zeros(problem.jobs)
    owner = np.repeat(np.arange(problem.jobs), np.diff(problem.job_options))
    np.maximum.at(found, owner, problem.option_rate / np.maximum(used, 1e-9))
    return found
