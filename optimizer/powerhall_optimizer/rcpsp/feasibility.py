"""Check of a finished schedule against the definition of the problem; imports no solver, numba or numpy."""

from powerhall_optimizer.rcpsp.instance import Instance, ProjectSchedule

__all__ = ["broken_rules"]


def broken_rules(instance: Instance, schedule: ProjectSchedule) -> list[str]:
    """Return one sentence for each rule the schedule breaks; an empty list means it is valid."""
    if len(schedule.starts) != instance.size:
        return [f"{len(schedule.starts)} starts for {instance.size} tasks"]
    return [*_early(instance, schedule), *_out_of_order(instance, schedule), *_overloads(instance, schedule)]


def _early(instance: Instance, schedule: ProjectSchedule) -> list[str]:
    return [
        f"task {task + 1} starts at {start}, before 0"
        for task, start in enumerate(schedule.starts[: instance.size])
        if start < 0
    ]


def _out_of_order(instance: Instance, schedule: ProjectSchedule) -> list[str]:
    broken = []
    for task, following in enumerate(instance.successors):
        finish = schedule.starts[task] + instance.durations[task]
        broken += [
            f"task {other + 1} starts at {schedule.starts[other]}, before task {task + 1} finishes at {finish}"
            for other in following
            if schedule.starts[other] < finish
        ]
    return broken


def _overloads(instance: Instance, schedule: ProjectSchedule) -> list[str]:
    """Load can only rise at a start, so every start is the one place to look."""
    broken = []
    for time in sorted(set(schedule.starts)):
        active = [
            task for task, start in enumerate(schedule.starts) if start <= time < start + instance.durations[task]
        ]
        for resource, capacity in enumerate(instance.capacities):
            load = sum(instance.demands[task][resource] for task in active)
            if load > capacity:
                broken.append(f"resource {resource + 1} carries {load} of {capacity} at time {time}")
    return broken
