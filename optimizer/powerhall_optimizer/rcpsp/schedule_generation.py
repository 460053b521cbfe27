"""Serial schedule generation and justification, compiled: a task list in, a schedule out.

Serial schedule generation: Kelley (1963), as in Kolisch, EJOR 90 (1996). Justification (forward-backward
improvement): Valls, Ballestin, Quintanilla, EJOR 165 (2005).
"""

import numpy as np

from powerhall_optimizer.rcpsp.project_arrays import Ints, ProjectArrays, compiled

__all__ = ["by_key", "decode", "improve"]


@compiled
def _place(task: int, earliest: int, project: ProjectArrays, load: Ints) -> int:
    """Put the task at its first fitting start at or after `earliest` and add its load."""
    duration = project.durations[task]
    resources = len(project.capacities)
    start = earliest
    time = start
    while time < start + duration:
        for resource in range(resources):
            if load[time, resource] + project.demands[task, resource] > project.capacities[resource]:
                start = time + 1
                break
        time += 1
    for time in range(start, start + duration):
        for resource in range(resources):
            load[time, resource] += project.demands[task, resource]
    return start


@compiled
def decode(tasks: Ints, project: ProjectArrays, load: Ints, starts: Ints) -> int:
    """Start the tasks in list order as early as precedence and resources allow; fills `starts`, returns the makespan.

    `load` is scratch space of shape (sum of durations, resources). Every task must come behind its predecessors.
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


@compiled
def by_key(keys: Ints, project: ProjectArrays) -> Ints:
    """Return the tasks by rising key; ties keep the topological order. Keys are not negative and < 2**31."""
    size = len(keys)
    wide = np.empty(size, dtype=np.int64)
    for task in range(size):
        wide[task] = keys[task] * size + project.rank[task]
    wide.sort()
    tasks = np.empty(size, dtype=np.int64)
    for at in range(size):
        tasks[at] = project.order[wide[at] % size]
    return tasks


@compiled
def _justify(starts: Ints, makespan: int, side: ProjectArrays, load: Ints, pushed: Ints) -> int:
    """Schedule the tasks on `side` of time, the latest to finish on the other side first; fills `pushed`."""
    keys = makespan - starts - side.durations
    return decode(by_key(keys, side), side, load, pushed)


@compiled
def improve(starts: Ints, makespan: int, sides: tuple[ProjectArrays, ProjectArrays], load: Ints) -> int:
    """Push right, then left, until the makespan stops falling; changes `starts` in place, returns the makespan.

    `sides` are the project and its mirror.
    """
    pushed = np.empty_like(starts)
    while True:
        length = _justify(starts, makespan, sides[1], load, pushed)
        shorter = _justify(pushed, length, sides[0], load, starts)
        if shorter >= makespan:
            return shorter
        makespan = shorter
