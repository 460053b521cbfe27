"""Snapshot into the integer problem: what each job may choose, what that uses, and what it is worth.

The problem is conservative: usage is rounded up, capacity down, and convex losses and cooling are replaced by straight
lines from above (`linear.py`). Limits of rows and racks are not in it; placement keeps those.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.cooling import media, plant_capacity_w
from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan import Snapshot, gpu_power_w, gpu_speed
from powerhall.topology import Feed, Hall, Mode, NodeType, Rack
from powerhall_optimizer.budgets import Ground
from powerhall_optimizer.linear import Rise, it_for_heat_w, loss_slope, rise, site_capacity
from powerhall_optimizer.problem import Problem, ProblemBuilder

__all__ = ["Built", "Choice", "build", "feed_halls", "may_use", "running_type", "whole_gpus"]

Floats = npt.NDArray[np.float64]
_VALUE_ROOM = 2.0**50
_STOP_FACTOR = 1000
"""Stopping a job that may not be stopped costs this many times its worth: it never pays."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What an option of the problem means; `running` says that the job goes on where it is."""

    job: Job
    hall: str
    node_type: str
    mode: str
    gpu_power_w: float
    running: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """The problem, what its options mean, and why some jobs have none."""

    problem: Problem
    choices: tuple[Choice, ...]
    jobs: tuple[Job, ...]
    without: Mapping[str, tuple[str, str]]
    unit_usd: float
    """Value of one unit of the objective."""


@dataclass(frozen=True, slots=True)
class _Room:
    """A hall's nodes of one type: its resources with the amount per W of IT, and what fits in."""

    hall: str
    kind: NodeType
    gpus: int
    gpu_resource: int
    per_watt: tuple[tuple[int, float], ...]
    meter: float
    """W at the meter per W of IT."""


def whole_gpus(gpus: int, per_node: int) -> int:
    """Return the GPUs that a job takes away: a job larger than a node takes whole nodes."""
    return gpus if gpus <= per_node else -(-gpus // per_node) * per_node


def may_use(job: Job, hall: str, node_type: str) -> bool:
    """Whether the job may run on this node type in this hall: a filter, never a preference."""
    return (not job.halls or hall in job.halls) and (not job.node_types or node_type in job.node_types)


def feed_halls(ground: Ground, feed: Feed) -> tuple[Hall, ...]:
    """Return the halls that hang under the feed with all of their racks; parts of halls are placement's business."""
    under = {rack.zone for rack in ground.site.feed_racks(feed)}
    return tuple(hall for hall in ground.site.halls if all(rack.zone in under for rack in hall.racks()))


class _Rooms:
    """Adds the resources of every hall, feed and the site to the builder."""

    def __init__(self, ground: Ground, builder: ProblemBuilder) -> None:
        self.ground = ground
        self.builder = builder
        self.site = ground.site
        self.per_watt: dict[tuple[str, str], list[tuple[int, float]]] = {}
        self.meter: dict[tuple[str, str], float] = {}

    def rooms(self) -> tuple[_Room, ...]:
        found: list[_Room] = []
        for hall in self.site.halls:
            counts: dict[str, int] = {}
            for rack in hall.racks():
                counts[rack.node_type] = counts.get(rack.node_type, 0) + self._gpus(rack)
            for kind in counts:
                self.per_watt[hall.zone, kind] = []
            self._hall(hall, tuple(counts))
            for name, gpus in counts.items():
                resource = self.builder.resource(f"{hall.zone}.{name}.gpus", gpus)
                found.append(_Room(hall.zone, self.site.node_types[name], gpus, resource, (), 1.0))
        for feed in self.site.feeds:
            self._feed(feed)
        self._meter()
        return tuple(
            _Room(
                r.hall,
                r.kind,
                r.gpus,
                r.gpu_resource,
                tuple(self.per_watt[r.hall, r.kind.name]),
                self.meter[r.hall, r.kind.name],
            )
            for r in found
        )

    def _gpus(self, rack: Rack) -> int:
        return self.site.node_types[rack.node_type].gpus * len(self.ground.usable(rack))

    def _add(self, name: str, what: str, free_w: Floats, slopes: Mapping[tuple[str, str], float]) -> None:
        zone, _, kind = name.rpartition(".")
        self.ground.refuse_below(zone, what, free_w)
        capacity = np.floor(np.clip(free_w, 0, 2**45)).astype(np.int64)
        resource = self.builder.resource(f"{zone}.{kind}", capacity)
        for key, slope in slopes.items():
            if slope > 0:
                self.per_watt[key].append((resource, slope))

    def _hall(self, hall: Hall, kinds: tuple[str, ...]) -> None:
        base = self.ground.hall_base(hall)
        ones = {(hall.zone, kind): 1.0 for kind in kinds}
        if hall.zone in self.ground.budgets_w:
            free_w = self.ground.budgets_w[hall.zone] - base.it_w
            self._add(f"{hall.zone}.it_w", "power budget", free_w, ones)
        liquid = {(hall.zone, k): self.site.node_types[k].liquid_fraction for k in kinds}
        air_slope = loss_slope(hall.losses, base.it_w, base.it_w + self._most_w(hall))
        for medium in media(hall):
            capacity = self._capacity(hall, medium)
            if medium == "all":
                free_w = np.array([it_for_heat_w(hall.losses, c) for c in capacity]) - base.it_w
                slopes = ones
            elif medium == "liquid":
                free_w, slopes = capacity - base.liquid_w, liquid
            else:
                free_w = capacity - base.air_w - hall.losses.power_w(base.it_w)
                slopes = {key: 1.0 - share + air_slope for key, share in liquid.items()}
            self._add(f"{hall.zone}.heat_{medium}_w", f"cooling capacity ({medium})", free_w, slopes)

    def _capacity(self, hall: Hall, medium: str) -> Floats:
        plants = [plant for plant in hall.plants if plant.serves == medium]
        return np.array([sum(plant_capacity_w(p, moment) for p in plants) for moment in self.ground.weather])

    def _most_w(self, hall: Hall) -> float:
        """Return the most IT power that jobs can add in a hall."""
        most = 0.0
        for rack in hall.racks():
            kind = self.site.node_types[rack.node_type]
            most += self._gpus(rack) * max(_dynamic_w(kind, mode, self.ground.snapshot) for mode in kind.modes)
        if hall.zone in self.ground.budgets_w:
            free_w = float(np.max(self.ground.budgets_w[hall.zone])) - self.ground.hall_base(hall).it_w
            most = min(most, max(0.0, free_w))
        return most

    def _feed(self, feed: Feed) -> None:
        halls = feed_halls(self.ground, feed)
        if halls:
            base = sum(self.ground.base_w[rack.zone] for rack in self.site.feed_racks(feed))
            names = {hall.zone for hall in halls}
            slopes = {key: 1.0 for key in self.per_watt if key[0] in names}
            self._add(f"{feed.zone}.it_w", "power budget", self.ground.budgets_w[feed.zone] - base, slopes)

    def _meter(self) -> None:
        """Facility power at the site: every hall's line added up."""
        rises: list[Rise] = []
        for hall in self.site.halls:
            kinds = [key[1] for key in self.per_watt if key[0] == hall.zone]
            liquid = {k: self.site.node_types[k].liquid_fraction for k in kinds}
            base = self.ground.hall_base(hall)
            rises.append(rise(hall, base, liquid, self._most_w(hall), self.ground.weather))
            self.meter |= {(hall.zone, kind): rises[-1].slope(kind) for kind in kinds}
        budget = self.ground.budgets_w.get(self.site.name)
        if budget is not None:
            free_w = budget - sum(r.low_w for r in rises)
            self.ground.refuse_below(self.site.name, "power budget", free_w)
            capacity = site_capacity(rises, np.clip(free_w, 0, 2**45))
            self._add(f"{self.site.name}.facility_w", "power budget", capacity, self.meter)


def _dynamic_w(kind: NodeType, mode: Mode, snapshot: Snapshot) -> float:
    """Return the most that a busy GPU adds above idle in this mode, whatever the job's class."""
    classes = (None, *snapshot.site.job_classes.values())
    return max(gpu_power_w(kind, mode, c) for c in classes) - kind.idle_gpu_power_w


class _Jobs:
    """Adds jobs and their options."""

    def __init__(
        self,
        snapshot: Snapshot,
        ground: Ground,
        builder: ProblemBuilder,
        rooms: tuple[_Room, ...],
        stops: Mapping[str, int],
    ) -> None:
        self.stops = stops
        self.snapshot = snapshot
        self.ground = ground
        self.builder = builder
        self.rooms = {(room.hall, room.kind.name): room for room in rooms}
        self.choices: list[Choice] = []
        self.without: dict[str, tuple[str, str]] = {}
        self.planned = {entry.job_id: entry for entry in snapshot.planned}
        self.unit_usd = self._unit()
        self.energy_unit_w, self.tariff = self._tariff()

    def _worth_usd(self, job: Job) -> float:
        return job.weight * job.gpus * job.duration_s / 3600 * self.snapshot.objective.usd_per_gpu_h

    def _unit(self) -> float:
        total = sum(self._worth_usd(job) for job in self.snapshot.jobs) * (_STOP_FACTOR + 10)
        return float(10.0 ** max(-6, math.ceil(math.log10(max(total, 1e-9) / _VALUE_ROOM))))

    def _tariff(self) -> tuple[float, int]:
        """Add the price of energy per slot; return the unit in which options count power, and the tariff's row."""
        s = self.snapshot
        usd_per_mwh = np.zeros(s.slots)
        if s.price_per_mwh:
            usd_per_mwh += np.array(s.price_per_mwh)
        if s.carbon_g_per_kwh:
            usd_per_mwh += np.array(s.carbon_g_per_kwh) / 1e3 * s.objective.carbon_usd_per_t
        if not usd_per_mwh.any():
            return 1.0, -1
        per_w = usd_per_mwh / 1e6 * s.slot_s / 3600 / self.unit_usd
        unit_w = float(10.0 ** max(0, math.ceil(math.log10(50 / max(1e-12, float(np.max(np.abs(per_w))))))))
        return unit_w, self.builder.tariff(np.rint(per_w * unit_w).astype(np.int64))

    def add(self, job: Job) -> None:
        s = self.snapshot
        worth = max(1, round(self._worth_usd(job) / self.unit_usd))
        within = worth * min(1.0, s.slots * s.slot_s / job.duration_s)
        running = job.state == "running"
        planned = self.planned.get(job.job_id)
        keep = running and not job.preemptible and self.stops.get(job.job_id) != 0
        wait = -_STOP_FACTOR * worth if keep else -round(within * s.objective.move_share) if running else 0
        number = self.builder.job(
            job.job_id,
            wait_value=wait,
            delay_cost=0 if running else round(within * s.objective.delay_share / s.slots),
            **self._deadline(job, worth),
            planned_start=-1 if planned is None else (planned.start_s - s.start_s) // s.slot_s,
            shift_cost=0 if planned is None else round(within * s.objective.shift_share / s.slots),
        )
        before = len(self.choices)
        for room in self._rooms_of(job) if self.stops.get(job.job_id) != 0 else ():
            for mode in self._modes_of(job, room.kind):
                self._option(number, job, worth, room, mode)
        if len(self.choices) == before:
            self.without[job.job_id] = self.no_option(job)

    def _deadline(self, job: Job, worth: int) -> dict[str, int]:
        s = self.snapshot
        if job.deadline_s is None or job.state == "running":
            return {}
        return {"deadline": math.floor((job.deadline_s - s.start_s) / s.slot_s), "late_fine": worth}

    def _rooms_of(self, job: Job) -> Iterator[_Room]:
        if job.sites and self.snapshot.site.name not in job.sites:
            return
        for (hall, kind), room in self.rooms.items():
            if job.state == "running":
                if hall == job.hall and kind == running_type(self.snapshot, job):
                    yield room
            elif may_use(job, hall, kind) and whole_gpus(job.gpus, room.kind.gpus) <= room.gpus:
                yield room

    def _modes_of(self, job: Job, kind: NodeType) -> Iterator[Mode]:
        now = next((m.gpu_power_w for m in kind.modes if m.name == job.mode), math.inf)
        for mode in kind.modes:
            if job.state == "waiting" or self.snapshot.allow_raises or mode.gpu_power_w <= now:
                yield mode

    def _option(self, number: int, job: Job, worth: int, room: _Room, mode: Mode) -> None:
        s = self.snapshot
        job_class = s.site.job_classes.get(job.job_class)
        power_w = gpu_power_w(room.kind, mode, job_class)
        speed = gpu_speed(mode, job_class)
        duration = self._slots(job, speed)
        running = job.state == "running"
        added_w = max(0.0, power_w - room.kind.idle_gpu_power_w)
        counted = self.ground.counted_gpus(job) if running else job.gpus
        earliest = (
            0 if running else max(0, math.ceil((max(job.submit_s, job.earliest_s or 0.0) - s.start_s) / s.slot_s))
        )
        if earliest >= s.slots:
            return
        uses = {room.gpu_resource: whole_gpus(counted, room.kind.gpus)}
        for resource, slope in room.per_watt:
            uses[resource] = math.ceil(added_w * counted * slope - 1e-6)
        self.builder.option(
            number,
            (room.hall, f"{room.kind.name}:{mode.name}"),
            duration=min(duration, self.stops.get(job.job_id, duration)),
            uses=uses,
            rate=max(1, round(worth * (1 - s.objective.slow_share * (1 / speed - 1)) / duration)),
            bonus=self._bonus(job, worth, room, mode, duration),
            earliest=earliest,
            latest=0 if running else s.slots - 1,
            tariff=self.tariff,
            energy=round(added_w * job.gpus * room.meter / self.energy_unit_w),
        )
        self.choices.append(Choice(job, room.hall, room.kind.name, mode.name, power_w, running))

    def _slots(self, job: Job, speed: float) -> int:
        return max(1, math.ceil(job.duration_s / speed / self.snapshot.slot_s - 1e-9))

    def _bonus(self, job: Job, worth: int, room: _Room, mode: Mode, duration: int) -> int:
        """Constants of an option: churn, and what of the delay cost is not the start's doing.

        The problem charges delay on the whole completion time; given back is the time that the job takes in its fastest
        mode, and all that lies behind the horizon, where nobody looks yet.
        """
        s = self.snapshot
        goal = s.objective
        within = worth * min(1.0, s.slots * s.slot_s / job.duration_s)
        planned = self.planned.get(job.job_id)
        moved = planned is not None and (planned.hall, planned.mode) != (room.hall, mode.name)
        moved = moved or (job.state == "running" and job.mode != mode.name)
        least = self._slots(job, 1.0)
        bonus = -within * goal.move_share if moved else 0.0
        if job.state == "waiting":
            given = duration if least >= s.slots else least + max(0, duration - s.slots)
            bonus += given * round(within * goal.delay_share / s.slots)
        return round(bonus)

    def no_option(self, job: Job) -> tuple[str, str]:
        """Say why a job can run nowhere within the horizon."""
        s = self.snapshot
        if job.sites and s.site.name not in job.sites:
            return "ineligible", f"may run only at {', '.join(job.sites)}; this site is {s.site.name}"
        fits = [room for (hall, kind), room in self.rooms.items() if may_use(job, hall, kind)]
        if not fits:
            return "ineligible", "no hall has the node types that it may use"
        if all(whole_gpus(job.gpus, r.kind.gpus) > r.gpus for r in fits):
            most = max(r.gpus for r in fits)
            return "too_large", f"needs {job.gpus} GPUs in one hall; the largest that it may use has {most}"
        if max(job.submit_s, job.earliest_s or 0.0) >= s.start_s + s.slots * s.slot_s:
            return "window", "may start only after the end of the horizon"
        return "ineligible", f"hall {job.hall!r} has no nodes of its type"


def running_type(snapshot: Snapshot, job: Job) -> str | None:
    """Return the node type of a running job: its own field, else the type of the rack that its first node is in."""
    if job.node_type is not None:
        return job.node_type
    first = expand(job.nodes)[0] if job.nodes else None
    for rack in snapshot.site.racks():
        if rack.zone.split("/")[0] == job.hall and (first is None or first in rack.nodes):
            return rack.node_type
    return None


def build(snapshot: Snapshot, ground: Ground | None = None, stops: Mapping[str, int] | None = None) -> Built:
    """Return the problem of a snapshot; the same inputs give the same problem. A budget below idle raises Rejected.

    `stops` says of running jobs that must be shed how many slots they still run (0: they stop now).
    """
    ground = ground or Ground(snapshot)
    builder = ProblemBuilder(snapshot.slots, snapshot.slot_s)
    rooms = _Rooms(ground, builder).rooms()
    jobs = _Jobs(snapshot, ground, builder, rooms, stops or {})
    for job in snapshot.jobs:
        jobs.add(job)
    return Built(builder.build(), tuple(jobs.choices), snapshot.jobs, jobs.without, jobs.unit_usd)
