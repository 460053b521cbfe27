"""Serial schedule generation scheme and justification, compiled: a task list in, a schedule out.

A task list is a permutation of the tasks in which each comes behind its predecessors. `starts` [N] holds start periods,
`load` [sum of durations, R] the units of each resource in use in each period.

Serial schedule generation: Kelley (1963), as in Kolisch, EJOR 90 (1996). Justification (forward-backward
improvement): Valls, Ballestin, Quintanilla, EJOR 165 (2005).
"""

import numpy as np

from powerhall_optimizer.jit import inner_kernel
from powerhall_optimizer.rcpsp.project_arrays import Ints, ProjectArrays

__all__ = ["by_key", "decode", "improve"]


@inner_kernel
def _place(task: int, earliest: int, project: ProjectArrays, load: Ints) -> int:
    """Put the task at its first fitting start at or after `earliest` and add its load.

    Where a period is too full, the next start to try lies behind it; earlier ones would run into it, too. `load` is
    long enough for all tasks one after the other, so a start is always found.
    """
    duration = project.durations[task]
    resources = len(project.capacities)
    start = earliest
    time = start
    while time < start + duration:
        for resource in range(resources):
            if load[time, resource] + project.demands[task, resource] > project.capacities[resource]:
                start = time + 1  # the loop goes on in that period
                break
        time += 1
    for time in range(start, start + duration):
        for resource in range(resources):
            load[time, resource] += project.demands[task, resource]
    return start


@inner_kernel
def decode(tasks: Ints, project: ProjectArrays, load: Ints, starts: Ints) -> int:
    """Start the tasks in list order as early as precedence and resources allow; fills `starts`, returns the makespan.

    Such a schedule is active: no task can start earlier while the others stay. Some active schedule is optimal, so
    the search may look at task lists alone. `load` is overwritten.
    """
    load[:] = 0
    makespan = 0
    for task in tasks:
        earliest = 0
        for edge in range(project.before_at[task], project.before_at[task + 1]):
            other = project.before[edge]
            earliest = max(earliest, starts[other] + project.durations[other])
        starts[task] = _place(task, earliest, project, load)
        makespan = max(makespan, starts[task] + project.durations[task])
    return makespan


@inner_kernel
def by_key(keys: Ints, project: ProjectArrays) -> Ints:
    """Return the tasks by rising key; ties keep the topological order. Keys are not negative and < 2**31.

    Key and topological rank are packed into one integer: numba sorts plain integers fast and has no stable argsort for
    pairs. By start as the key this is a task list: a predecessor starts no later, and comes first in a tie.
    """
    size = len(keys)
    wide = np.empty(size, dtype=np.int64)
    for task in range(size):
        wide[task] = keys[task] * size + project.rank[task]
    wide.sort()
    tasks = np.empty(size, dtype=np.int64)
    for at in range(size):
        tasks[at] = project.order[wide[at] % size]
    return tasks


@inner_kernel
def _justify(starts: Ints, makespan: int, side: ProjectArrays, load: Ints, pushed: Ints) -> int:
    """Schedule the tasks on one side of time, the latest to finish on the other side first; fills `pushed`.

    The key is a task's start seen from the other end of time.
    """
    keys = makespan - starts - side.durations
    return decode(by_key(keys, side), side, load, pushed)


@inner_kernel
def improve(starts: Ints, makespan: int, sides: tuple[ProjectArrays, ProjectArrays], load: Ints) -> int:
    """Push all tasks right, then left, until the makespan stops falling; changes `starts`, returns the makespan.

    `sides` are the project and its mirror: to push right is to schedule the mirror from its own time 0. Neither push
    makes a schedule longer, because each task may keep the place it had.
    """
    pushed = np.empty_like(starts)
    while True:
        length = _justify(starts, makespan, sides[1], load, pushed)
        shorter = _justify(pushed, length, sides[0], load, starts)
        if shorter >= makespan:
            return shorter
        makespan = shorter
