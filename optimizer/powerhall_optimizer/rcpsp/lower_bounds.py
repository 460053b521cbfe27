"""Lower bounds that take no search: the critical path, and the work that must pass through each resource."""

import numpy as np

from powerhall_optimizer.rcpsp.project_arrays import ProjectArrays

__all__ = ["critical_path", "resource_work"]


def critical_path(arrays: ProjectArrays) -> int:
    """Longest chain of durations."""
    return int(arrays.tails.max())


def resource_work(arrays: ProjectArrays) -> int:
    """Largest over resources and heads h, tails q of h + work / capacity + q.

    The work is that of tasks which cannot start before h and whose successors need at least q after them; it must
    fit between h and the makespan minus q (Mingozzi et al., Management Science 44 (1998), relaxed to one resource).
    """
    heads, tails = arrays.heads, arrays.tails - arrays.durations
    best = 0
    for resource, capacity in enumerate(arrays.capacities):
        work = arrays.durations * arrays.demands[:, resource]
        for head in np.unique(heads):
            late = heads >= head
            for tail in np.unique(tails[late]):
                total = int(work[late & (tails >= tail)].sum())
                if total > 0:
                    best = max(best, int(head) + -(-total // int(capacity)) + int(tail))
    return best
