"""A genetic algorithm over task lists, compiled; every child is justified before it is ranked.

A population fills with sampled schedules first. Then each step crosses two members, mutates the child's task list,
decodes and justifies it, and lets it replace a worse member. Members are kept as starts, which are turned back into
task lists when they are crossed: after justification the list that was decoded no longer fits the schedule.

Two-point crossover: Hartmann, Naval Research Logistics 45 (1998). Children of justified schedules as in Valls,
Ballestin, Quintanilla, EJOR 185 (2008). Ranking: makespan first, then the sum of starts (earlier is denser).
"""

from typing import NamedTuple

import numpy as np

from powerhall_optimizer.jit import inner_kernel, kernel
from powerhall_optimizer.rcpsp.instance import ProjectSchedule
from powerhall_optimizer.rcpsp.project_arrays import Ints, ProjectArrays, mirror_of
from powerhall_optimizer.rcpsp.schedule_generation import by_key, decode, improve

__all__ = ["Population"]

_NEVER = 2**62
_PATIENCE = 400
"""A run ends when this many children for each member brought no shorter makespan."""


class _Pool(NamedTuple):
    """The population, changed in place; M members at most. Single numbers are arrays because kernels change them."""

    members: Ints  # [M, N] starts
    makespans: Ints  # [M] periods
    totals: Ints  # [M] sum of starts
    fill: Ints  # [1] members so far
    state: Ints  # [1] state of the random stream, 1 .. 2**32 - 1


@inner_kernel
def _random(state: Ints, below: int) -> int:
    """Return the next number of the stream in [0, below), by a 32-bit xorshift (Marsaglia, 2003).

    Every population has a stream of its own, so that its course does not depend on what other threads draw; the bias
    of the remainder is below 2**-20 for the ranges used here.
    """
    x = int(state[0])
    x ^= (x << 13) & 0xFFFFFFFF
    x ^= x >> 17
    x ^= (x << 5) & 0xFFFFFFFF
    state[0] = x
    return x % below


@inner_kernel
def _sampled_list(project: ProjectArrays, noise: int, state: Ints) -> Ints:
    """Draw a list by the longest tail first, each task's tail blurred by up to `noise` periods.

    The longest tail (latest finish time) is the strongest of the simple priority rules; noise makes the samples
    differ. A task is eligible once all its predecessors are in the list.
    """
    size = len(project.tails)
    waiting = project.before_at[1:] - project.before_at[:-1]  # predecessors not in the list yet; -1: in the list
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


@inner_kernel
def _cross(father: Ints, mother: Ints, state: Ints) -> Ints:
    """Cross two task lists at two points: head and tail as in the father, the middle in the mother's order.

    The middle is a quarter to three quarters of the list. Any two tasks that a path binds stand in the same order in
    both parents, and so in the child: it is a task list, too.
    """
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


@inner_kernel
def _mutate(tasks: Ints, closure: Ints, swaps: int, state: Ints) -> None:
    """Swap up to `swaps` pairs of neighbours that no path binds; the list remains a task list."""
    size = len(tasks)
    if size < 2:
        return
    for _ in range(swaps):
        at = _random(state, size - 1)
        one, other = tasks[at], tasks[at + 1]
        if closure[one, other] < 0:
            tasks[at], tasks[at + 1] = other, one


@inner_kernel
def _better(one_makespan: int, one_sum: int, makespan: int, total: int) -> bool:
    """Whether the one ranks before the other; most schedules tie on the makespan, so the sum of starts decides."""
    return one_makespan < makespan or (one_makespan == makespan and one_sum < total)


@inner_kernel
def _next_list(pool: _Pool, project: ProjectArrays) -> Ints:
    """A sampled list while the pool fills, a child of two members afterwards."""
    size = len(project.durations)
    if pool.fill[0] < len(pool.makespans):
        return _sampled_list(project, 1 + _random(pool.state, 1 + project.tails.max() // 2), pool.state)
    one, other = _pick(pool), _pick(pool)
    child = _cross(by_key(pool.members[one], project), by_key(pool.members[other], project), pool.state)
    _mutate(child, project.closure, 1 + _random(pool.state, 1 + size // 10), pool.state)
    return child


@kernel
def _breed(children: int, floor: int, pool: _Pool, sides: tuple[ProjectArrays, ProjectArrays], load: Ints) -> None:
    """Make up to `children` schedules; stop at once when a makespan reaches `floor`, the proved lower bound.

    `sides` are the project and its mirror, `load` is scratch [sum of durations, R].
    """
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


@inner_kernel
def _pick(pool: _Pool) -> int:
    """Pick a parent: the better of two members drawn at random (binary tournament)."""
    one, other = _random(pool.state, len(pool.makespans)), _random(pool.state, len(pool.makespans))
    return one if _better(pool.makespans[one], pool.totals[one], pool.makespans[other], pool.totals[other]) else other


@inner_kernel
def _victim(pool: _Pool, makespan: int, total: int) -> int:
    """Return the member that the child replaces: the worst of three drawn, if the child is better and new; else -1.

    Two schedules of the same makespan and sum count as the same: duplicates would let the population converge early.
    """
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
