"""Place jobs of a schedule within every hall's limits onto rows, racks and nodes.

Invariants:
* limits of rows, racks and of feeds that carry parts of halls hold in every slot;
* a job of a node's GPUs or fewer stays on one node, a larger one takes whole nodes, in as few rows as there are;
* a job with `within` has each of its parts in one block of that level (`block_choice.py`);
* running jobs stay where they are; whole-node gangs choose before small jobs, so that small jobs do not split nodes;
* a job that finds no nodes as scheduled gets its next best hall, mode and start that fit, or goes back to waiting;
* ramp limits of sites hold between consecutive slots (`ramps.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from powerhall.hostlist import compress
from powerhall.jobs.model import node_gpus
from powerhall.plan.plan import Placement
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.allowance import OPTION_S, PUT_S, STARTS_S, Allowance
from powerhall_optimizer.placement.homes import Homes
from powerhall_optimizer.placement.node_occupancy import NodeOccupancy, Split
from powerhall_optimizer.placement.placement_reasons import PlacementCause, PlacementReason
from powerhall_optimizer.placement.repack import Gang, repacked
from powerhall_optimizer.placement.site_power import SitePower
from powerhall_optimizer.placement.zone_headroom import ZoneHeadroom
from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.problem.gang_blocks import Parts, parts_of
from powerhall_optimizer.problem.site_problem import BuiltProblem, Choice
from powerhall_optimizer.problem.usage import add_usage, over_limit, usage_of
from powerhall_optimizer.solve.density_greedy import value_densities

__all__ = ["PlacedSchedule", "Placer"]

_REMEMBERED = 20_000
"""Value curves (one number per start) in the cache, at most."""
_SMALL = 2
"""Turn of jobs that take a part of a node."""
_TRIES = 24
"""Starts tried per option, at most."""


@dataclass(frozen=True, slots=True)
class PlacedSchedule:
    """The schedule as placed, the nodes of each scheduled job, why jobs were left out, and why others were moved."""

    schedule: Schedule
    nodes: dict[int, tuple[Placement, ...]]
    left_out: dict[int, PlacementReason]
    moved: dict[int, PlacementReason] = field(default_factory=dict)
    cut: bool = False
    """The deadline cut the search for places short."""


class Placer:
    """Places jobs on nodes one by one; `usage` counts every job of the schedule, placed or still to be placed."""

    def __init__(
        self, conditions_of: Mapping[str, SiteConditions], built: BuiltProblem, schedule: Schedule, allowance: Allowance
    ) -> None:
        self.conditions_of = conditions_of
        self.built = built
        self.problem: Problem = built.problem
        self.allowance = allowance
        """Bounds the search for other options; jobs for which nothing is left wait."""
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
        self.homes = Homes(self.splits)
        self.usage: Ints = usage_of(self.problem, schedule)
        self.has_blocks = any(job.within is not None and job.state == "waiting" for job in built.jobs)
        """Whether a job of the queue must stay within a block."""

    def span(self, option: int, start: int) -> tuple[int, int]:
        """Return the first slot of a run and the one after its last, cut to the horizon."""
        return start, min(start + int(self.problem.option_duration[option]), self.problem.slots)

    def _use(self, job: int, sign: int) -> None:
        option = int(self.option[job])
        add_usage(self.problem, self.usage, option, self.span(option, int(self.start[job])), sign)

    def schedule(self, job: int, option: int, start: int) -> None:
        """Put a job on the schedule that is not on it; its nodes follow."""
        self.option[job], self.start[job] = option, start
        self._use(job, 1)

    def fits(self, option: int, start: int) -> bool:
        """Whether every limit of the problem holds with an option at this start beside the schedule."""
        return bool(self._fits(option)[start - int(self.problem.option_earliest[option])])

    def gain_of(self, job: int, option: int, start: int) -> int:
        """Return how much more a job is worth with an option at this start than as it is scheduled."""
        return int(self.values(job, option)[start - int(self.problem.option_earliest[option])]) - self.value_of(job)

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
            self.occupancies[key].keep_blocks = self.has_blocks
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
        split = self.home(job, option, start) or self._split(choice, occupancy, gpu_w, begin, end)
        if split is None:
            return False
        if self.option[job] >= 0 and (self.option[job], self.start[job]) != (option, start):
            self._use(job, -1)
            self.option[job] = -1
        self.put_at(job, option, start, split)
        return True

    def put_new(self, job: int, option: int, start: int) -> bool:
        """Place an unscheduled job at this option and start if every limit holds."""
        return self.fits(option, start) and self._ramps(option, start) and self.put(job, option, start)

    def put_at(self, job: int, option: int, start: int, split: Split) -> None:
        """Place a job on these nodes, which must be free for it; it is unscheduled, or scheduled like this."""
        choice = self.built.choices[option]
        begin, end = self.span(option, start)
        if self.option[job] < 0:
            self.option[job], self.start[job] = option, start
            self._use(job, 1)
        self.occupancy(choice).take(split, self.gpu_w(choice), begin, end, running=choice.running)
        self.site_powers[choice.site].add(choice, begin, end)
        self.splits[job] = split
        for node, _ in split:
            self.users_of(choice)[node].add(job)

    def within(self, choice: Choice) -> tuple[str, Parts] | None:
        """Return the level and the parts of a job that must stay within blocks; one that runs is where it is."""
        level = choice.job.within
        parts = None if level is None or choice.running else parts_of(choice.job, self.occupancy(choice).per_node)
        return None if level is None or parts is None else (level, parts)

    def home(self, job: int, option: int, start: int) -> Split | None:
        """Return the nodes that a job has at home with this option and start, if they are free for it."""
        split = self.homes.nodes(job, option, start)
        if split is None:
            return None
        choice, span = self.built.choices[option], self.span(option, start)
        occupancy = self.occupancy(choice)
        loads = occupancy.loads(split, self.gpu_w(choice))
        free = occupancy.has_alone(split, *span) and self.headroom[choice.site].fits(loads, *span)
        return split if free else None

    def _split(self, choice: Choice, occupancy: NodeOccupancy, gpu_w: float, start: int, end: int) -> Split | None:
        if (within := self.within(choice)) is not None:
            return occupancy.find_within(within, choice.job.gpus, gpu_w, (start, end), choice.job.allowed_nodes)
        if not (choice.running and choice.job.nodes):
            return occupancy.find(choice.job.gpus, gpu_w, start, end, choice.job.allowed_nodes)
        stays = node_gpus(choice.job)
        split = [(occupancy.index[node], gpus) for node, gpus in stays.items() if node in occupancy.index]
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
            self.occupancy(choice).take(split, self.gpu_w(choice), begin, end, -1, running=choice.running)
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
        self.allowance.charge(OPTION_S * len(self.problem.options_of(job)))
        ways.sort()
        tried: dict[int, tuple[Ints, Ints]] = {}
        counts: dict[int, int] = {}
        while ways and not self.allowance.spent:
            _, minus, start = ways.pop()
            option = -minus
            if start >= 0:
                self.allowance.charge(PUT_S)
                yield option, start
                counts[option] = counts.get(option, 0) + 1
            else:
                self.allowance.charge(STARTS_S)
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
            openings = self.occupancy(choice).openings(
                choice.job.gpus, length, choice.job.allowed_nodes, self.within(choice)
            )
            fits &= openings[first : last + 1]
        starts = np.flatnonzero(fits)
        starts = starts[np.argsort(-values[starts], kind="stable")]
        return starts + first, values[starts]

    def _fits(self, option: int) -> npt.NDArray[np.bool_]:
        """Whether every limit of the problem holds with the option beside the schedule, for each of its starts."""
        over = over_limit(self.problem, self.usage, option)
        blocked = np.concatenate(([0], np.cumsum(over)))
        starts = np.arange(self.problem.option_earliest[option], self.problem.option_latest[option] + 1)
        ends = np.minimum(starts + self.problem.option_duration[option], self.problem.slots)
        result: npt.NDArray[np.bool_] = blocked[ends] == blocked[starts]
        return result

    def run(self, homeless_jobs: Sequence[tuple[int, int, int]] = ()) -> None:
        """Place the scheduled jobs that have no nodes yet, then find other options for those that find none.

        `homeless_jobs` (value, job, option) are off the schedule and look for other options as well; the most valuable
        choose first.
        """
        homeless = [(-value, job, option) for value, job, option in homeless_jobs]
        jobs = [job for job in np.flatnonzero(self.option >= 0).tolist() if job not in self.splits]
        turns = {job: self.turn(job) for job in jobs}
        gangs = sorted((job for job in jobs if turns[job][0] < _SMALL), key=turns.__getitem__)
        lost = self._put_scheduled(gangs)
        if any(self.within(self.choice(job)) is not None for job in lost):
            lost = self._repack(lost)
        lost += self._put_scheduled(sorted((job for job in jobs if turns[job][0] == _SMALL), key=turns.__getitem__))
        found = [(-self.value_of(job), job, int(self.option[job])) for job in lost]
        for _, job, _ in found:
            self.drop(job)
        for _, job, option in sorted(homeless + found):
            if self.place_best(job):
                self.moved[job] = self._no_nodes(option)
            else:
                self.left_out[job] = self._no_nodes(option)

    def _put_scheduled(self, jobs: Sequence[int]) -> list[int]:
        """Place scheduled jobs in this order; return those that find no nodes."""
        return [job for job in jobs if not self.put(job, int(self.option[job]), int(self.start[job]))]

    def _repack(self, lost: Sequence[int]) -> list[int]:
        """Place the gangs of the pools in which one found no block once more, together; return those without nodes."""
        pools = {self._pool(job) for job in lost if self.within(self.choice(job)) is not None}
        left = [job for job in lost if self._pool(job) not in pools]
        for pool in sorted(pools):
            jobs = [job for job in self.splits if self._pool(job) == pool and not self.choice(job).running]
            jobs = [job for job in jobs if not self.homes.hold(job)]
            jobs = sorted([*jobs, *(job for job in lost if self._pool(job) == pool)])
            fixed = [job for job in jobs if self.choice(job).job.allowed_nodes is not None]
            left += [job for job in fixed if job not in self.splits]
            jobs = [job for job in jobs if job not in fixed]
            if not jobs:
                continue
            was = {job: (int(self.option[job]), int(self.start[job]), self.splits.get(job)) for job in jobs}
            gangs = [self._gang(job) for job in jobs]
            for job in jobs:
                self.drop(job)
            found = repacked(self.occupancy(self.built.choices[was[jobs[0]][0]]), gangs)
            for job, (option, start, split) in was.items():
                again = split if found is None else found.get(job)
                if again is None:
                    self.schedule(job, option, start)
                    left.append(job)
                else:
                    self.put_at(job, option, start, again)
        return left

    def _pool(self, job: int) -> tuple[str, str, str]:
        choice = self.choice(job)
        return choice.site, choice.hall, choice.node_type

    def _gang(self, job: int) -> Gang:
        choice, option, start = self.choice(job), int(self.option[job]), int(self.start[job])
        per_node = self.occupancy(choice).per_node
        worth = max(1, self.value_of(job) - int(self.problem.job_wait_value[job]))
        size = choice.job.gpus, -(-choice.job.gpus // per_node)
        return Gang(job, *size, *self.span(option, start), per_node * self.gpu_w(choice), worth, self.within(choice))

    def turn(self, job: int) -> tuple[int, int, int]:
        """Sort key: gangs within blocks by start, other gangs by start, then small jobs by size and start."""
        choice = self.choice(job)
        gpus, start = choice.job.gpus, int(self.start[job])
        if gpus >= self.occupancy(choice).per_node:
            return int(self.within(choice) is None), start, -gpus
        return _SMALL, -gpus, start

    def fill(self, allowance: Allowance) -> None:
        """Start waiting jobs beside the placed ones while it is allowed, the highest value per resource first."""
        self.allowance = allowance
        density = value_densities(self.problem)
        waits = np.flatnonzero((self.option < 0) & (np.diff(self.problem.job_options) > 0))
        for job in waits[np.argsort(-density[waits], kind="stable")].tolist():
            if self.built.jobs[job].state != "waiting":
                continue
            if allowance.spent:
                break
            if self.place_best(job):
                self.left_out.pop(job, None)

    def _no_nodes(self, option: int) -> PlacementReason:
        choice = self.built.choices[option]
        if (within := self.within(choice)) is not None:
            level, parts = within
            return PlacementReason(
                PlacementCause.NO_BLOCK, choice.hall, choice.job.gpus, level=level, parts=parts.count, nodes=parts.nodes
            )
        one_node = choice.job.gpus <= self.occupancy(choice).per_node
        return PlacementReason(PlacementCause.NO_NODES, choice.hall, choice.job.gpus, one_node)

    def close_running_gangs(self) -> None:
        """Keep other jobs off the nodes of gangs that run; call it when every running job is placed."""
        for job, split in self.splits.items():
            choice = self.choice(job)
            if choice.running:
                self.occupancy(choice).close(split, *self.span(int(self.option[job]), int(self.start[job])))

    def placed(self) -> PlacedSchedule:
        """Return the placed schedule."""
        nodes = {job: self._placements(job, split) for job, split in sorted(self.splits.items())}
        return PlacedSchedule(Schedule(self.option, self.start), nodes, self.left_out, self.moved)

    def _placements(self, job: int, split: Split) -> tuple[Placement, ...]:
        choice = self.choice(job)
        occupancy = self.occupancy(choice)
        if choice.running and choice.job.nodes:
            rack_of = self.conditions_of[choice.site].index.rack_of
            named = [(rack_of[node].zone, node, gpus) for node, gpus in node_gpus(choice.job).items() if gpus]
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
