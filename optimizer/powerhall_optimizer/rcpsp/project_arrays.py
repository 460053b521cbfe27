"""The project as numpy arrays, the form that compiled kernels read.

All numbers are int64 and exact: durations and times in whole periods of the file's own unit, demands and capacities in
the units of the resource.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.jit import kernel
from powerhall_optimizer.rcpsp.instance import Instance, predecessors_of, topological_order

__all__ = ["Ints", "ProjectArrays", "arrays_of", "mirror_of"]

Ints = npt.NDArray[np.int64]


class ProjectArrays(NamedTuple):
    """N tasks, dummies included, R resources, E precedence relations; read only."""

    durations: Ints  # [N]
    demands: Ints  # [N, R] units per period while the task runs
    capacities: Ints  # [R]
    before: Ints  # [E] predecessors of task i: before[before_at[i]] .. before[before_at[i + 1] - 1]
    before_at: Ints  # [N + 1]
    after: Ints  # [E] successors of task i, likewise
    after_at: Ints  # [N + 1]
    order: Ints  # [N] tasks in topological order
    rank: Ints  # [N] place of each task in `order`
    closure: Ints  # [N, N] longest path from the start of task i to the start of task j, -1 where there is none
    heads: Ints  # [N] earliest start by precedence alone
    tails: Ints  # [N] least time from the start of the task to the end of the project, its own duration included


def arrays_of(instance: Instance) -> ProjectArrays:
    """Lay out one project; all of it is computed once and only read afterwards."""
    before, before_at = _ragged(predecessors_of(instance.successors))
    after, after_at = _ragged([list(following) for following in instance.successors])
    order = np.array(topological_order(instance), dtype=np.int64)
    rank = np.empty_like(order)
    rank[order] = np.arange(instance.size)
    durations = np.array(instance.durations, dtype=np.int64)
    demands = np.array(instance.demands, dtype=np.int64).reshape(instance.size, len(instance.capacities))
    capacities = np.array(instance.capacities, dtype=np.int64)
    closure = _longest_paths(durations, order, after, after_at)
    heads = np.maximum(closure.max(axis=0), 0)
    tails = np.maximum((closure + np.where(closure >= 0, durations, 0)).max(axis=1), durations)
    return ProjectArrays(
        durations, demands, capacities, before, before_at, after, after_at, order, rank, closure, heads, tails
    )


def mirror_of(arrays: ProjectArrays) -> ProjectArrays:
    """Return the same project run backwards in time."""
    durations = arrays.durations
    paths = arrays.closure.T
    backwards = np.where(paths >= 0, paths - durations[None, :] + durations[:, None], -1)
    return arrays._replace(
        before=arrays.after,
        before_at=arrays.after_at,
        after=arrays.before,
        after_at=arrays.before_at,
        order=arrays.order[::-1].copy(),
        rank=len(durations) - 1 - arrays.rank,
        closure=np.ascontiguousarray(backwards),  # same layout as the project's: compiled once for both
        heads=arrays.tails - durations,
        tails=arrays.heads + durations,
    )


def _ragged(lists: list[list[int]]) -> tuple[Ints, Ints]:
    flat = np.array([item for items in lists for item in items], dtype=np.int64)
    ends = np.cumsum([0, *(len(items) for items in lists)]).astype(np.int64)
    return flat, ends


@kernel
def _longest_paths(durations: Ints, order: Ints, after: Ints, after_at: Ints) -> Ints:
    """Return `closure`; from the last task to the first, so that the paths of a task's successors are known."""
    size = len(durations)
    closure = np.full((size, size), -1, dtype=np.int64)
    for at in range(size - 1, -1, -1):
        task = order[at]
        for edge in range(after_at[task], after_at[task + 1]):
            following = after[edge]
            closure[task, following] = max(closure[task, following], durations[task])
            for other in range(size):
                if closure[following, other] >= 0:
                    path = durations[task] + closure[following, other]
                    closure[task, other] = max(closure[task, other], path)
    return closure
