"""A genetic search over task lists, compiled; every child is justified before it is judged.

Two-point crossover: Hartmann, Naval Research Logistics 45 (1998). Children of justified schedules as in Valls,
Ballestin, Quintanilla, EJOR 185 (2008). Ranking: makespan first, then the sum of starts (earlier is denser).
"""

from typing import NamedTuple

import numpy as np

from powerhall_optimizer.rcpsp.instance import ProjectSchedule
from powerhall_optimizer.rcpsp.project_arrays import Ints, ProjectArrays, compiled, mirror_of
from powerhall_optimizer.rcpsp.schedule_generation import by_key, decode, improve

__all__ = ["Population"]

_NEVER = 2**62
_PATIENCE = 400
"""A run ends when this many children for each member brought no shorter makespan."""


class _Pool(NamedTuple):
    """Members are starts, shape (capacity, tasks); `totals` are their sums; `fill` and `state` have one entry."""

    members: Ints
    makespans: Ints
    totals: Ints
    fill: Ints
    state: Ints


@compiled
def _random(state: Ints, below: int) -> int:
    """Return a number in [0, below) by a 32-bit xorshift (Marsaglia, 2003)."""
    x = int(state[0])
    x ^= (x << 13) & 0xFFFFFFFF
    x ^= x >> 17
    x ^= (x << 5) & 0xFFFFFFFF
    state[0] = x
    return x % below


@compiled
def _sampled_list(project: ProjectArrays, noise: int, state: Ints) -> Ints:
    """Draw a list by the longest tail first, each task's tail blurred by up to `noise` periods."""
    size = len(project.tails)
    waiting = project.before_at[1:] - project.before_at[:-1]
    blurred = np.empty(size, dtype=np.int64)
    for task in range(size):
        blurred[task] = project.tails[task] + _random(state, noise + 1)
    tasks = np.empty(size, dtype=np.int64)
    for at in range(size):
        best = -1
        for task in range(size):
            if waiting[task] == 0 and (best < 0 or blurred[task] > blurred[best]):
                best = task
        tasks[at] = best
        waiting[best] = -1
        for edge in range(project.after_at[best], project.after_at[best + 1]):
            waiting[project.after[edge]] -= 1
    return tasks


@compiled
def _cross(father: Ints, mother: Ints, state: Ints) -> Ints:
    """The father's head and tail, the mother's order in the middle; precedence survives."""
    size = len(father)
    width = size // 4 + _random(state, size // 2 + 1)
    first = _random(state, size - width + 1)
    child = father.copy()
    taken = np.zeros(size, dtype=np.bool_)
    for at in range(first):
        taken[father[at]] = True
    fill = first
    for task in mother:
        if fill == first + width:
            break
        if not taken[task]:
            child[fill] = task
            taken[task] = True
            fill += 1
    for task in father:
        if not taken[task]:
            child[fill] = task
            fill += 1
    return child


@compiled
def _mutate(tasks: Ints, closure: Ints, swaps: int, state: Ints) -> None:
    """Swap about `swaps` pairs of neighbours that no path binds."""
    size = len(tasks)
    if size < 2:
        return
    for _ in range(swaps):
        at = _random(state, size - 1)
        one, other = tasks[at], tasks[at + 1]
        if closure[one, other] < 0:
            tasks[at], tasks[at + 1] = other, one


@compiled
def _better(one_makespan: int, one_sum: int, makespan: int, total: int) -> bool:
    return one_makespan < makespan or (one_makespan == makespan and one_sum < total)


@compiled
def _next_list(pool: _Pool, project: ProjectArrays) -> Ints:
    """A sampled list while the pool fills, a child of two members afterwards."""
    size = len(project.durations)
    if pool.fill[0] < len(pool.makespans):
        return _sampled_list(project, 1 + _random(pool.state, 1 + project.tails.max() // 2), pool.state)
    one, other = _pick(pool), _pick(pool)
    child = _cross(by_key(pool.members[one], project), by_key(pool.members[other], project), pool.state)
    _mutate(child, project.closure, 1 + _random(pool.state, 1 + size // 10), pool.state)
    return child


@compiled
def _breed(children: int, floor: int, pool: _Pool, sides: tuple[ProjectArrays, ProjectArrays], load: Ints) -> None:
    """Make up to `children` members; stop at once when a makespan reaches `floor`."""
    starts = np.empty(len(sides[0].durations), dtype=np.int64)
    for _ in range(children):
        makespan = decode(_next_list(pool, sides[0]), sides[0], load, starts)
        makespan = improve(starts, makespan, sides, load)
        total = starts.sum()
        if pool.fill[0] < len(pool.makespans):
            victim = pool.fill[0]
            pool.fill[0] += 1
        else:
            victim = _victim(pool, makespan, total)
        if victim >= 0:
            pool.members[victim, :] = starts
            pool.makespans[victim] = makespan
            pool.totals[victim] = total
        if makespan <= floor:
            break


@compiled
def _pick(pool: _Pool) -> int:
    """Binary tournament."""
    one, other = _random(pool.state, len(pool.makespans)), _random(pool.state, len(pool.makespans))
    return one if _better(pool.makespans[one], pool.totals[one], pool.makespans[other], pool.totals[other]) else other


@compiled
def _victim(pool: _Pool, makespan: int, total: int) -> int:
    """Whom the child replaces: the worst of three drawn, if the child is better than it and new; else -1."""
    victim = _random(pool.state, len(pool.makespans))
    for _ in range(2):
        other = _random(pool.state, len(pool.makespans))
        if _better(pool.makespans[victim], pool.totals[victim], pool.makespans[other], pool.totals[other]):
            victim = other
    if not _better(makespan, total, pool.makespans[victim], pool.totals[victim]):
        return -1
    for member in range(len(pool.makespans)):
        if pool.makespans[member] == makespan and pool.totals[member] == total:
            return -1
    return victim


class Population:
    """A breeding population of one project that starts anew when it has converged; not for two threads at once."""

    def __init__(self, arrays: ProjectArrays, seed: int, capacity: int = 400) -> None:
        """Prepare an empty population; the same seed and number of children give the same schedules."""
        shape = (int(arrays.durations.sum()), len(arrays.capacities))
        self._sides = (arrays, mirror_of(arrays))
        self._load = np.zeros(shape, dtype=np.int64)
        self._pool = _Pool(
            np.zeros((capacity, len(arrays.durations)), dtype=np.int64),
            np.zeros(capacity, dtype=np.int64),
            np.zeros(capacity, dtype=np.int64),
            np.zeros(1, dtype=np.int64),
            np.array([(seed * 2654435761 + 88172645) % 0xFFFFFFFF or 1], dtype=np.int64),
        )
        self._best_of_run = _NEVER
        self._children_since = 0
        self.children = 0

    def breed(self, children: int, floor: int) -> ProjectSchedule:
        """Make at least one and at most `children` new members; return the best of the present run."""
        _breed(children, floor, self._pool, self._sides, self._load)
        self.children += children
        best = int(self._pool.makespans[: self._pool.fill[0]].argmin())
        found = ProjectSchedule(tuple(int(start) for start in self._pool.members[best]))
        self._note(int(self._pool.makespans[best]), children)
        return found

    def _note(self, makespan: int, children: int) -> None:
        """Start anew when no child has improved the run for long."""
        self._children_since += children
        if makespan < self._best_of_run:
            self._best_of_run, self._children_since = makespan, 0
        if self._children_since > _PATIENCE * len(self._pool.makespans):
            self._pool.fill[0] = 0
            self._best_of_run, self._children_since = _NEVER, 0
