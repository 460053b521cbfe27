"""The usage of every resource in every slot under a schedule."""

import numpy as np

from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule

__all__ = ["usage_of"]


def usage_of(problem: Problem, schedule: Schedule) -> Ints:
    """Return the usage of every resource in every slot."""
    usage = np.zeros_like(problem.capacity)
    for job in np.flatnonzero(schedule.option >= 0).tolist():
        option, start = int(schedule.option[job]), int(schedule.start[job])
        for resource, amount in problem.uses_of(option):
            usage[resource, start : start + int(problem.option_duration[option])] += amount
    return usage
