"""Continuation of running jobs: which go on, and which stop when the budgets no longer carry them.

Order of retention: jobs that may not be preempted first, then by weight, then the longest-running; the last are shed
first. Each job is tried in its lowest-power mode, then in the others. A job that does not fit at all runs until the
first slot whose limit it would break. Retained jobs return to the mode that they run in now where that fits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from powerhall.jobs import Job
from powerhall.jobs.model import node_gpus
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.zone_headroom import ZoneHeadroom
from powerhall_optimizer.problem.arrays import Ints, Schedule
from powerhall_optimizer.problem.resources import Resource
from powerhall_optimizer.problem.site_problem import BuiltProblem
from powerhall_optimizer.problem.usage import add_usage, meter_rise

__all__ = ["RetainedJobs", "retain_running_jobs"]


@dataclass(frozen=True, slots=True)
class RetainedJobs:
    """Running jobs as they continue; of the shed ones, the slots that they still run and the limits that they break."""

    schedule: Schedule
    stops: dict[str, int]
    broken: dict[str, tuple[Resource, ...]]


def retention_order(job: Job) -> tuple[bool, float, float, str]:
    """Sort key: retained first come first."""
    return job.preemptible, -job.weight, job.start_s or 0.0, job.job_id


class _Retention:
    def __init__(self, conditions: SiteConditions, built: BuiltProblem) -> None:
        self.conditions = conditions
        self.problem = built.problem
        self.built = built
        self.usage: Ints = np.zeros_like(built.problem.capacity)
        self.headroom = ZoneHeadroom(conditions)

    def loads(self, option: int) -> dict[str, float]:
        """Power per rack that a running job's option adds."""
        choice = self.built.choices[option]
        kind = self.conditions.site.node_types[choice.node_type]
        gpu_w = max(0.0, choice.gpu_power_w - kind.idle_gpu_power_w)
        loads: dict[str, float] = {}
        for node, gpus in node_gpus(choice.job).items():
            if node not in self.conditions.stale and node not in self.conditions.off:
                rack = self.conditions.index.rack_of[node].zone
                loads[rack] = loads.get(rack, 0.0) + gpus * gpu_w
        return loads

    def exceeded(self, option: int) -> dict[Resource, int]:
        """Return the limits that an option would break, with the first slot in which it would break each."""
        end = min(int(self.problem.option_duration[option]), self.problem.slots)
        found: dict[Resource, int] = {}
        for resource, amount in self.problem.uses_of(option):
            over = self.usage[resource, :end] + amount > self.problem.capacity[resource, :end]
            if over.any():
                found[self.problem.resource_keys[resource]] = int(np.argmax(over))
        if (rise := meter_rise(self.problem, self.usage, option)) is not None:
            over = (self.usage[rise[0]] + rise[1] > self.problem.capacity[rise[0]])[:end]
            if over.any():
                found[self.problem.resource_keys[rise[0]]] = int(np.argmax(over))
        against = self.headroom.exceeded(self.loads(option), 0, end)
        return found | {Resource(zone): slot for zone, slot in against.items()}

    def add(self, option: int, sign: int, slots: int | None = None) -> None:
        """Count an option's load (or take it off again)."""
        end = min(slots or int(self.problem.option_duration[option]), self.problem.slots)
        add_usage(self.problem, self.usage, option, (0, end), sign)
        self.headroom.add({rack: sign * load for rack, load in self.loads(option).items()}, 0, end)

    def first_fit(self, options: Iterable[int]) -> int | None:
        """Return the first option that fits."""
        return next((option for option in options if not self.exceeded(option)), None)


def retain_running_jobs(conditions: SiteConditions, built: BuiltProblem) -> RetainedJobs:
    """Return the retained running jobs and those that must be shed; `built` has no stops yet."""
    retention = _Retention(conditions, built)
    schedule = Schedule.empty(built.problem.jobs)
    stops: dict[str, int] = {}
    broken: dict[str, tuple[Resource, ...]] = {}
    running = [n for n, job in enumerate(built.jobs) if job.state == "running" and len(built.problem.options_of(n))]
    running.sort(key=lambda n: retention_order(built.jobs[n]))
    for number in running:
        options = sorted(built.problem.options_of(number), key=lambda o: built.choices[o].gpu_power_w)
        option = retention.first_fit(options)
        if option is None:
            against = retention.exceeded(options[0])
            broken[built.jobs[number].job_id] = tuple(sorted(against, key=str))
            stops[built.jobs[number].job_id] = left = min(against.values())
            option = options[0]
            if left > 0:
                retention.add(option, 1, left)
            continue
        retention.add(option, 1)
        schedule.option[number], schedule.start[number] = option, 0
    for number in running:
        if schedule.option[number] >= 0:
            _back_up(retention, schedule, number)
    return RetainedJobs(schedule, stops, broken)


def _back_up(retention: _Retention, schedule: Schedule, number: int) -> None:
    """Give a retained job the mode it runs in now, if that fits."""
    low = int(schedule.option[number])
    job = retention.built.jobs[number]
    now = [o for o in retention.built.problem.options_of(number) if retention.built.choices[o].mode == job.mode]
    retention.add(low, -1)
    option = retention.first_fit(now)
    schedule.option[number] = low if option is None else option
    retention.add(int(schedule.option[number]), 1)
