"""What runs goes on: the plan of last resort, and which running jobs must stop when the budgets no longer carry them.

Jobs are kept in a stated order: those that may not be preempted first, then by weight, then the longest-running; the
last ones are shed first. Each is tried in its lowest-power mode, then in others; what does not fit at all runs until
the first slot that it would break, and stops there. Kept jobs then go back to the mode that they run in where that
fits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall_optimizer.physics.limits import Ground
from powerhall_optimizer.placement.node_occupancy import spread
from powerhall_optimizer.placement.zone_headroom import Zones
from powerhall_optimizer.problem.arrays import Ints, Schedule
from powerhall_optimizer.problem.build import Built

__all__ = ["Kept", "keep_running"]


@dataclass(frozen=True, slots=True)
class Kept:
    """Running jobs as they go on; for the shed ones, how many slots are left to them and what stands against them."""

    schedule: Schedule
    stops: dict[str, int]
    broken: dict[str, tuple[str, ...]]


def keep_order(job: Job) -> tuple[bool, float, float, str]:
    """Sort key: kept first come first."""
    return job.preemptible, -job.weight, job.start_s or 0.0, job.job_id


class _Keeper:
    def __init__(self, ground: Ground, built: Built) -> None:
        self.ground = ground
        self.problem = built.problem
        self.built = built
        self.usage: Ints = np.zeros_like(built.problem.capacity)
        self.zones = Zones(ground)

    def loads(self, option: int) -> dict[str, float]:
        """Power per rack that a running job's option adds."""
        choice = self.built.choices[option]
        kind = self.ground.site.node_types[choice.node_type]
        gpu_w = max(0.0, choice.gpu_power_w - kind.idle_gpu_power_w)
        loads: dict[str, float] = {}
        closed = self.ground.stale | self.ground.down
        for node, gpus in spread(choice.job, expand(choice.job.nodes)) if choice.job.nodes else ():
            if node not in closed:
                rack = self.ground.index.rack_of[node].zone
                loads[rack] = loads.get(rack, 0.0) + gpus * gpu_w
        return loads

    def against(self, option: int) -> dict[str, int]:
        """Return the zones and resources that stand against an option, with the first slot in which each does."""
        end = min(int(self.problem.option_duration[option]), self.problem.slots)
        found: dict[str, int] = {}
        for resource, amount in self.problem.uses_of(option):
            over = self.usage[resource, :end] + amount > self.problem.capacity[resource, :end]
            if over.any():
                found[self.problem.resource_names[resource]] = int(np.argmax(over))
        return found | self.zones.against(self.loads(option), 0, end)

    def add(self, option: int, sign: int, slots: int | None = None) -> None:
        """Count an option's load (or take it off again)."""
        end = min(slots or int(self.problem.option_duration[option]), self.problem.slots)
        for resource, amount in self.problem.uses_of(option):
            self.usage[resource, :end] += sign * amount
        self.zones.add({rack: sign * load for rack, load in self.loads(option).items()}, 0, end)

    def first_fit(self, options: Iterable[int]) -> int | None:
        """Return the first option that fits."""
        return next((option for option in options if not self.against(option)), None)


def keep_running(ground: Ground, built: Built) -> Kept:
    """Return how the running jobs go on and which of them must be shed; `built` knows of no stops yet."""
    keeper = _Keeper(ground, built)
    schedule = Schedule.empty(built.problem.jobs)
    stops: dict[str, int] = {}
    broken: dict[str, tuple[str, ...]] = {}
    running = [n for n, job in enumerate(built.jobs) if job.state == "running" and len(built.problem.options_of(n))]
    running.sort(key=lambda n: keep_order(built.jobs[n]))
    for number in running:
        options = sorted(built.problem.options_of(number), key=lambda o: built.choices[o].gpu_power_w)
        option = keeper.first_fit(options)
        if option is None:
            against = keeper.against(options[0])
            broken[built.jobs[number].job_id] = tuple(sorted(against))
            stops[built.jobs[number].job_id] = left = min(against.values())
            option = options[0]
            if left > 0:
                keeper.add(option, 1, left)
            continue
        keeper.add(option, 1)
        schedule.option[number], schedule.start[number] = option, 0
    for number in running:
        if schedule.option[number] >= 0:
            _back_up(keeper, schedule, number)
    return Kept(schedule, stops, broken)


def _back_up(keeper: _Keeper, schedule: Schedule, number: int) -> None:
    """Give a kept job the mode it runs in now, if that fits."""
    low = int(schedule.option[number])
    job = keeper.built.jobs[number]
    now = [o for o in keeper.built.problem.options_of(number) if keeper.built.choices[o].mode == job.mode]
    keeper.add(low, -1)
    option = keeper.first_fit(now)
    schedule.option[number] = low if option is None else option
    keeper.add(int(schedule.option[number]), 1)
