"""The project as numpy arrays, the shape that compiled code reads."""

from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from powerhall_optimizer.rcpsp.instance import Instance, predecessors_of, topological_order

__all__ = ["Ints", "ProjectArrays", "arrays_of", "compiled", "mirror_of"]

Ints = npt.NDArray[np.int64]
P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for speed; the machine code is cached on disk and runs without Python's global lock."""
    return cast("Callable[P, R]", numba.njit(cache=True, nogil=True)(function))


class ProjectArrays(NamedTuple):
    """Shapes: tasks n, resources r; compiled code takes named tuples, so this is one.

    `before[before_at[i]:before_at[i + 1]]` are the predecessors of task i, `after` likewise its successors.
    `order` is topological, `rank` its inverse. `closure[i, j]` (n, n) is the longest path from the start of i to the
    start of j, -1 where there is none. `heads[i]` is the earliest start, `tails[i]` the least time from the start of i
    to the end of the project, its own duration included.
    """

    durations: Ints
    demands: Ints
    capacities: Ints
    before: Ints
    before_at: Ints
    after: Ints
    after_at: Ints
    order: Ints
    rank: Ints
    closure: Ints
    heads: Ints
    tails: Ints


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


@compiled
def _longest_paths(durations: Ints, order: Ints, after: Ints, after_at: Ints) -> Ints:
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
