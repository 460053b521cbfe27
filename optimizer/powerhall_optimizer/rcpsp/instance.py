"""A resource-constrained project: tasks with durations, precedences and demands on renewable resources."""

from collections.abc import Sequence
from dataclasses import dataclass

from powerhall.runtime.errors import Rejected

__all__ = ["Instance", "ProjectSchedule", "predecessors_of", "reversed_in_time", "topological_order"]


@dataclass(frozen=True, slots=True)
class Instance:
    """One project; task numbers count from 0, times are whole periods of the file's own unit.

    Invariants: precedence has no cycle, every demand fits its capacity, durations and demands are not negative.
    """

    name: str
    durations: tuple[int, ...]
    successors: tuple[tuple[int, ...], ...]
    demands: tuple[tuple[int, ...], ...]
    capacities: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a project that no schedule can satisfy."""
        _check_shapes(self)
        _check_demands(self)
        topological_order(self)

    @property
    def size(self) -> int:
        """Number of tasks, dummies included."""
        return len(self.durations)


@dataclass(frozen=True, slots=True)
class ProjectSchedule:
    """A start for every task."""

    starts: tuple[int, ...]

    def makespan(self, durations: Sequence[int]) -> int:
        """Return the finish of the last task."""
        return max((start + duration for start, duration in zip(self.starts, durations, strict=True)), default=0)


def reversed_in_time(schedule: ProjectSchedule, durations: Sequence[int]) -> ProjectSchedule:
    """Run a schedule backwards in time: the last task to finish is the first to start."""
    makespan = schedule.makespan(durations)
    starts = zip(schedule.starts, durations, strict=True)
    return ProjectSchedule(tuple(makespan - start - duration for start, duration in starts))


def predecessors_of(successors: Sequence[Sequence[int]]) -> list[list[int]]:
    """Turn successor lists round."""
    predecessors: list[list[int]] = [[] for _ in successors]
    for task, following in enumerate(successors):
        for other in following:
            predecessors[other].append(task)
    return predecessors


def topological_order(instance: Instance) -> list[int]:
    """Return the tasks so that every task comes after its predecessors; refuse a cycle."""
    waiting = [len(before) for before in predecessors_of(instance.successors)]
    order = [task for task, count in enumerate(waiting) if count == 0]
    for task in order:
        for other in instance.successors[task]:
            waiting[other] -= 1
            if waiting[other] == 0:
                order.append(other)
    if len(order) < instance.size:
        stuck = next(task for task, count in enumerate(waiting) if count > 0)
        raise Rejected.field(instance.name, "precedence", f"task {stuck + 1}", "lies on or behind a cycle")
    return order


def _check_shapes(instance: Instance) -> None:
    size = instance.size
    if size == 0:
        raise Rejected.field(instance.name, "tasks", 0, "must be at least 1")
    if len(instance.successors) != size or len(instance.demands) != size:
        raise Rejected.field(instance.name, "tasks", size, "durations, successors and demands must be equally many")
    for task, following in enumerate(instance.successors):
        for other in following:
            if not 0 <= other < size:
                raise Rejected.field(instance.name, f"successor of task {task + 1}", other + 1, f"must be 1..{size}")


def _check_demands(instance: Instance) -> None:
    for task, demands in enumerate(instance.demands):
        if instance.durations[task] < 0:
            raise Rejected.field(
                instance.name, f"duration of task {task + 1}", instance.durations[task], "must be >= 0"
            )
        if len(demands) != len(instance.capacities):
            allowed = f"must be {len(instance.capacities)} numbers"
            raise Rejected.field(instance.name, f"demands of task {task + 1}", demands, allowed)
        for resource, (demand, capacity) in enumerate(zip(demands, instance.capacities, strict=True)):
            if not 0 <= demand <= capacity:
                field = f"demand of task {task + 1} on resource {resource + 1}"
                raise Rejected.field(instance.name, field, demand, f"must be 0..{capacity}, the capacity")
