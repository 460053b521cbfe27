"""The genetic search is pinned: a seed and a number of children give the same schedules as ever, on any machine."""

import hashlib

import numpy as np
import pytest

from powerhall_optimizer.rcpsp.feasibility import broken_rules
from powerhall_optimizer.rcpsp.genetic_search import Population
from powerhall_optimizer.rcpsp.instance import Instance
from powerhall_optimizer.rcpsp.project_arrays import arrays_of

EXPECTED = (
    (15, 1, ([33, 33, 32], "80b8c30925b9")),
    (30, 2, ([56, 55, 54], "13cb23ae1867")),
    (60, 3, ([101, 99, 99], "6e41d432e2d4")),
)
"""Tasks, seed; makespans after each batch, hash of the schedules."""


def some_project(tasks: int, seed: int) -> Instance:
    """Tasks with up to eight successors among the next ten, between two dummies; four resources."""
    rng = np.random.default_rng(seed)
    successors: list[list[int]] = [[] for _ in range(tasks + 2)]
    for task in range(1, tasks + 1):
        near = range(task + 1, min(tasks + 1, task + 11))
        successors[task] = [other for other in near if rng.random() < 0.15] or [tasks + 1]
    with_predecessor = {other for following in successors for other in following}
    successors[0] = [task for task in range(1, tasks + 1) if task not in with_predecessor]
    durations = (0, *(int(d) for d in rng.integers(1, 11, tasks)), 0)
    demands = ((0,) * 4, *(tuple(int(d) for d in rng.integers(0, 9, 4)) for _ in range(tasks)), (0,) * 4)
    return Instance(f"p{tasks}", durations, tuple(tuple(s) for s in successors), demands, (14, 15, 16, 17))


def course_of(tasks: int, seed: int) -> tuple[list[int], str]:
    """Makespans after each of three batches of children, and a hash of the best schedules."""
    instance = some_project(tasks, seed)
    population = Population(arrays_of(instance), seed, capacity=50)
    best = [population.breed(150, 0) for _ in range(3)]
    assert not [rule for schedule in best for rule in broken_rules(instance, schedule)]
    text = repr([schedule.starts for schedule in best])
    return [schedule.makespan(instance.durations) for schedule in best], hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize(("tasks", "seed", "expected"), EXPECTED)
def test_a_seed_gives_the_same_schedules_as_ever(tasks, seed, expected) -> None:
    assert course_of(tasks, seed) == expected
