"""Place jobs of a schedule within every hall's limits onto rows, racks and nodes.

Invariants:
* limits of rows, racks and of feeds that carry parts of halls hold in every slot;
* a job of a node's GPUs or fewer stays on one node, a larger one takes whole nodes, in as few rows as there are;
* running jobs stay where they are; whole-node gangs choose before small jobs, so that small jobs do not split nodes;
* a job that finds no nodes as scheduled gets its next best hall, mode and start that fit, or goes back to waiting;
* ramp limits of sites hold between consecutive slots (`ramps.py`).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from powerhall.hostlist import compress, expand
from powerhall.plan.plan import Placement
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.node_occupancy import NodeOccupancy, Split, spread_gpus
from powerhall_optimizer.placement.placement_reasons import PlacementCause, PlacementReason
from powerhall_optimizer.placement.site_power import SitePower
from powerhall_optimizer.placement.zone_headroom import ZoneHeadroom
from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem, Choice
from powerhall_optimizer.solve.density_greedy import value_densities

__all__ = ["PlacedSchedule", "Placer"]

_REMEMBERED = 20_000
"""Value curves (one number per start) in the cache, at most."""
_TRIES = 24
"""Starts tried per option, at most."""


@dataclass(frozen=True, slots=True)
class PlacedSchedule:
    """The schedule as placed, the nodes of each scheduled job, why jobs were left out, and why others were moved."""

    schedule: Schedule
    nodes: dict[int, tuple[Placement, ...]]
    left_out: dict[int, PlacementReason]
    moved: dict[int, PlacementReason] = field(default_factory=dict)


class Placer:
    """Places jobs on nodes one by one; `usage` counts every job of the schedule, placed or still to be placed."""

    def __init__(
        self, conditions_of: Mapping[str, SiteConditions], built: BuiltProblem, schedule: Schedule, deadline_s: float
    ) -> None:
        self.conditions_of = conditions_of
        self.built = built
        self.problem: Problem = built.problem
        self.deadline_s = deadline_s
        self.values = lru_cache(maxsize=_REMEMBERED)(built.problem.values)
        self.option = schedule.option.copy()
        self.start = schedule.start.copy()
        self.headroom = {site: ZoneHeadroom(conditions) for site, conditions in conditions_of.items()}
        self.site_powers = {site: SitePower(conditions) for site, conditions in conditions_of.items()}
        self.occupancies: dict[tuple[str, str, str], NodeOccupancy] = {}
        self.splits: dict[int, Split] = {}
        self.users: dict[tuple[str, str, str], list[set[int]]] = {}
        self.left_out: dict[int, PlacementReason] = {}
        self.moved: dict[int, PlacementReason] = {}
        self.usage: Ints = np.zeros_like(self.problem.capacity)
        for job in np.flatnonzero(self.option >= 0).tolist():
            self._use(job, 1)

    def span(self, option: int, start: int) -> tuple[int, int]:
        """Return the first slot of a run and the one after its last, cut to the horizon."""
        return start, min(start + int(self.problem.option_duration[option]), self.problem.slots)

    def _use(self, job: int, sign: int) -> None:
        start, end = self.span(int(self.option[job]), int(self.start[job]))
        for resource, amount in self.problem.uses_of(int(self.option[job])):
            self.usage[resource, start:end] += sign * amount

    def choice(self, job: int) -> Choice:
        """Return the choice of a scheduled job."""
        return self.built.choices[int(self.option[job])]

    def value_of(self, job: int) -> int:
        """Return the value of a job as it is scheduled now."""
        option, start = int(self.option[job]), int(self.start[job])
        if option < 0:
            return int(self.problem.job_wait_value[job])
        return int(self.values(job, option)[start - int(self.problem.option_earliest[option])])

    def occupancy(self, choice: Choice) -> NodeOccupancy:
        """Return the occupancy of the pool of a choice."""
        key = choice.site, choice.hall, choice.node_type
        if key not in self.occupancies:
            conditions = self.conditions_of[choice.site]
            self.occupancies[key] = NodeOccupancy(conditions, choice.hall, choice.node_type, self.headroom[choice.site])
            self.users[key] = [set() for _ in self.occupancies[key].nodes]
        return self.occupancies[key]

    def users_of(self, choice: Choice) -> list[set[int]]:
        """Return for each node of the pool of a choice the jobs on it at any time."""
        self.occupancy(choice)
        return self.users[choice.site, choice.hall, choice.node_type]

    def gpu_w(self, choice: Choice) -> float:
        """Return the power that a busy GPU adds to the idle node, in W."""
        kind = self.conditions_of[choice.site].site.node_types[choice.node_type]
        return max(0.0, choice.gpu_power_w - kind.idle_gpu_power_w)

    def put(self, job: int, option: int, start: int) -> bool:
        """Place a job that is not placed; return False and change nothing where it has no nodes."""
        choice = self.built.choices[option]
        occupancy, gpu_w = self.occupancy(choice), self.gpu_w(choice)
        begin, end = self.span(option, start)
        split = self._split(choice, occupancy, gpu_w, begin, end)
        if split is None:
            return False
        if self.option[job] >= 0:
            self._use(job, -1)
        self.put_at(job, option, start, split)
        return True

    def put_new(self, job: int, option: int, start: int) -> bool:
        """Place an unscheduled job at this option and start if every limit holds."""
        first = int(self.problem.option_earliest[option])
        return bool(self._fits(option)[start - first]) and self._ramps(option, start) and self.put(job, option, start)

    def put_at(self, job: int, option: int, start: int, split: Split) -> None:
        """Place an unscheduled job on these nodes, which must be free for it."""
        choice = self.built.choices[option]
        begin, end = self.span(option, start)
        self.option[job], self.start[job] = option, start
        self._use(job, 1)
        self.occupancy(choice).take(split, self.gpu_w(choice), begin, end)
        self.site_powers[choice.site].add(choice, begin, end)
        self.splits[job] = split
        for node, _ in split:
            self.users_of(choice)[node].add(job)

    def _split(self, choice: Choice, occupancy: NodeOccupancy, gpu_w: float, start: int, end: int) -> Split | None:
        if not (choice.running and choice.job.nodes):
            return occupancy.find(choice.job.gpus, gpu_w, start, end)
        stays = spread_gpus(choice.job, expand(choice.job.nodes))
        split = [(occupancy.index[node], gpus) for node, gpus in stays if node in occupancy.index]
        fits = occupancy.has(split, start, end) and self.headroom[choice.site].fits(
            occupancy.loads(split, gpu_w), start, end
        )
        return split if fits else None

    def drop(self, job: int) -> None:
        """Take a job off the schedule, and off its nodes where it has some."""
        split = self.splits.pop(job, None)
        if split is not None:
            choice = self.choice(job)
            begin, end = self.span(int(self.option[job]), int(self.start[job]))
            self.occupancy(choice).take(split, self.gpu_w(choice), begin, end, -1)
            self.site_powers[choice.site].add(choice, begin, end, -1)
            for node, _ in split:
                self.users_of(choice)[node].discard(job)
        self._use(job, -1)
        self.option[job] = self.start[job] = -1

    def place_best(self, job: int) -> bool:
        """Schedule and place a job at its most valuable hall, mode and start that fit; False where none does."""
        return any(self._ramps(option, start) and self.put(job, option, start) for option, start in self._ways(job))

    def _ramps(self, option: int, start: int) -> bool:
        choice = self.built.choices[option]
        return choice.running or self.site_powers[choice.site].allows(choice, *self.span(option, start))

    def _ways(self, job: int) -> Iterator[tuple[int, int]]:
        """Yield options with starts, best value first, where limits and free nodes allow for them."""
        worst = int(self.problem.job_wait_value[job])
        ways: list[tuple[int, int, int]] = []
        for option in self.problem.options_of(job):
            values = self.values(job, option)
            fits = self._fits(option) & (values > worst)
            if fits.any():
                ways.append((int(values[fits].max()), -option, -1))
        ways.sort()
        tried: dict[int, tuple[Ints, Ints]] = {}
        counts: dict[int, int] = {}
        while ways and time.monotonic() < self.deadline_s:
            _, minus, start = ways.pop()
            option = -minus
            if start >= 0:
                yield option, start
                counts[option] = counts.get(option, 0) + 1
            else:
                tried[option] = self._starts(job, option, worst)
            starts, values = tried[option]
            at = counts.get(option, 0)
            if at < min(len(starts), _TRIES):
                ways.append((int(values[at]), -option, int(starts[at])))
                ways.sort()

    def _starts(self, job: int, option: int, worst: int) -> tuple[Ints, Ints]:
        """Return the starts of an option that fit, those of most value first, and their values."""
        choice = self.built.choices[option]
        first, last = int(self.problem.option_earliest[option]), int(self.problem.option_latest[option])
        values = self.values(job, option)
        fits = self._fits(option) & (values > worst)
        if not (choice.running and choice.job.nodes):
            length = int(self.problem.option_duration[option])
            fits &= self.occupancy(choice).openings(choice.job.gpus, length)[first : last + 1]
        starts = np.flatnonzero(fits)
        starts = starts[np.argsort(-values[starts], kind="stable")]
        return starts + first, values[starts]

    def _fits(self, option: int) -> npt.NDArray[np.bool_]:
        """Whether every limit of the problem holds with the option beside the schedule, for each of its starts."""
        over = np.zeros(self.problem.slots, bool)
        for resource, amount in self.problem.uses_of(option):
            over |= self.usage[resource] + amount > self.problem.capacity[resource]
        blocked = np.concatenate(([0], np.cumsum(over)))
        starts = np.arange(self.problem.option_earliest[option], self.problem.option_latest[option] + 1)
        ends = np.minimum(starts + self.problem.option_duration[option], self.problem.slots)
        result: npt.NDArray[np.bool_] = blocked[ends] == blocked[starts]
        return result

    def run(self) -> None:
        """Place the schedule as it is, then find other options for jobs without nodes, the most valuable first.

        Running jobs are placed before any other job takes nodes or power.
        """
        jobs = np.flatnonzero(self.option >= 0).tolist()
        running = [self.built.jobs[job].state == "running" for job in jobs]
        self._place([job for job, runs in zip(jobs, running, strict=True) if runs])
        self._place([job for job, runs in zip(jobs, running, strict=True) if not runs])

    def _place(self, jobs: Sequence[int]) -> None:
        homeless: list[tuple[int, int, int]] = []
        for job in sorted(jobs, key=self._turn):
            option, start = int(self.option[job]), int(self.start[job])
            if not self.put(job, option, start):
                homeless.append((-self.value_of(job), job, option))
        for _, job, _ in homeless:
            self.drop(job)
        for _, job, option in sorted(homeless):
            if self.place_best(job):
                self.moved[job] = self._no_nodes(option)
            else:
                self.left_out[job] = self._no_nodes(option)

    def _turn(self, job: int) -> tuple[bool, int, int]:
        """Sort key: whole-node gangs by start, then small jobs by size and start."""
        choice = self.choice(job)
        gpus, start = choice.job.gpus, int(self.start[job])
        if gpus >= self.occupancy(choice).per_node:
            return False, start, -gpus
        return True, -gpus, start

    def fill(self, deadline_s: float) -> None:
        """Start waiting jobs beside the placed ones until the deadline, the highest value per resource first."""
        self.deadline_s = deadline_s
        density = value_densities(self.problem)
        waits = np.flatnonzero((self.option < 0) & (np.diff(self.problem.job_options) > 0))
        for job in waits[np.argsort(-density[waits], kind="stable")].tolist():
            if self.built.jobs[job].state != "waiting":
                continue
            if time.monotonic() >= deadline_s:
                break
            if self.place_best(job):
                self.left_out.pop(job, None)

    def _no_nodes(self, option: int) -> PlacementReason:
        choice = self.built.choices[option]
        one_node = choice.job.gpus <= self.occupancy(choice).per_node
        return PlacementReason(PlacementCause.NO_NODES, choice.hall, choice.job.gpus, one_node)

    def placed(self) -> PlacedSchedule:
        """Return the placed schedule."""
        nodes = {job: self._placements(job, split) for job, split in sorted(self.splits.items())}
        return PlacedSchedule(Schedule(self.option, self.start), nodes, self.left_out, self.moved)

    def _placements(self, job: int, split: Split) -> tuple[Placement, ...]:
        choice = self.choice(job)
        occupancy = self.occupancy(choice)
        if choice.running and choice.job.nodes:
            rack_of = self.conditions_of[choice.site].index.rack_of
            named = [
                (rack_of[node].zone, node, gpus) for node, gpus in spread_gpus(choice.job, expand(choice.job.nodes))
            ]
        else:
            named = [
                (occupancy.racks[int(occupancy.rack_of[node])], occupancy.nodes[node], gpus) for node, gpus in split
            ]
        return _grouped(named)


def _grouped(named: Sequence[tuple[str, str, int]]) -> tuple[Placement, ...]:
    groups: dict[tuple[str, int], list[str]] = {}
    for rack, node, gpus in named:
        groups.setdefault((rack, gpus), []).append(node)
    return tuple(Placement(rack, compress(nodes), gpus) for (rack, gpus), nodes in groups.items())
