"""Sheds are justified: a running job stops only where a limit needs it, in the order of the docs, and no earlier.

The order in which running jobs are kept: those that may not be preempted, then by weight, then the longest-running.
They are counted again in this order, each in the mode of least power. A shed of a job is needless where, beside all
that are kept before it, some mode of its own holds every limit in every slot. Of a job that may not be preempted it is
too early where its mode of least power breaks the first limit only later.

Limits count here as a little lower than they are, because the planner's curves lie above the true ones; storage counts
as charging; a kept job whose mode of least power does not hold them counts at its worst. In a hall where a running job
has no known nodes a shed is believed.

A plan without a certificate, as an emergency shed leaves it, may also stop a job that may be preempted where the plan
as it is has no room for it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.physics.cooling import HallLoad, hall_load, media, medium_load
from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Assignment, Snapshot, gpu_power_w, gpu_speed
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Mode, NodeType
from powerhall_optimizer.verify.case import Floats, PlanCase, Violation
from powerhall_optimizer.verify.gpu_shares import hosts_alone
from powerhall_optimizer.verify.loads import gpus_of, held_by_node, idle_rack_w, jobs_w, outdoor_air, zone_budgets

__all__ = ["shed_checks"]

_PART = 2e-3
"""Part of a limit by which the planner may count it lower."""
_WATTS = 50.0
_STEP = 1 / 32
"""Part of a plant's power between two points of the planner's table, at most."""


def shed_checks(case: PlanCase) -> Iterator[Violation]:
    """Yield the sheds of running jobs that no limit needs."""
    shed = {job_id for job_id, entry in case.waiting.items() if entry.code == "shed"}
    shed = {job_id for job_id in shed if job_id in case.jobs and case.jobs[job_id].state == "running"}
    if shed:
        yield from _Replay(case, shed).violations()


def _kept_first(job: Job) -> tuple[bool, float, float, str]:
    """Sort key: the jobs that are kept first come first."""
    return job.preemptible, -job.weight, job.start_s or 0.0, job.job_id


@dataclass(frozen=True, slots=True)
class _Run:
    """A running job in one mode: the slots of its work, the power per rack that it adds in W, GPUs on open nodes."""

    job: Job
    kind: NodeType
    slots: int
    rack_w: dict[str, float]
    hall_w: float
    gpus: int


class _Replay:
    """Counts running jobs one after another, in the order in which they are kept."""

    def __init__(self, case: PlanCase, shed: set[str]) -> None:
        self.case, self.shed = case, shed
        self.snapshot: Snapshot = case.snapshot
        self.index = SiteIndex.of(case.site)
        self.fixed = {*self.snapshot.off_nodes, *self.snapshot.stale_nodes}
        self.room = _Room(self.snapshot)
        self.entries = {entry.job_id: entry for _, entry in case.pairs}
        self.running = hosts_alone(job for job in case.jobs.values() if job.state == "running")
        self.unknown = {job.hall for job in self.running if not job.nodes}

    def violations(self) -> Iterator[Violation]:
        """Yield the needless sheds, and those that come too early."""
        for job in sorted(self.running, key=_kept_first):
            runs = self._runs(job)
            if not runs:
                continue
            if job.job_id in self.shed:
                yield from self._needless(job, runs)
                self.room.add(runs[0], self._slots_left(job))
            elif self.room.first_broken(runs[0]) is None:
                self.room.add(runs[0], runs[0].slots)
            else:
                self.room.add(runs[-1], max(run.slots for run in runs))

    def _needless(self, job: Job, runs: Sequence[_Run]) -> Iterator[Violation]:
        if job.hall in self.unknown or (self._emergency(job) and not self._has_room(runs)):
            return
        stops = [self.room.first_broken(run) for run in runs]
        if None in stops:
            text = "is shed, but it fits beside the jobs that are kept before it"
            yield Violation("shed", job.job_id, text)
        elif stops[0] is not None and self._slots_left(job) < stops[0] and not job.preemptible:
            text = f"is shed at {self.case.when(self._slots_left(job))}, but fits until {self.case.when(stops[0])}"
            yield Violation("shed", job.job_id, text)

    def _slots_left(self, job: Job) -> int:
        entry = self.entries.get(job.job_id)
        return 0 if entry is None else max(0, (entry.end_s - entry.start_s) // self.snapshot.slot_s)

    def _emergency(self, job: Job) -> bool:
        return job.preemptible and self.case.plan.certificate is None and self.case.plan.status == "fallback"

    def _has_room(self, runs: Sequence[_Run]) -> bool:
        """Whether the job fits beside the plan as it is, without what it still runs itself."""
        others = [entry for _, entry in self.case.pairs if entry.job_id != runs[0].job.job_id]
        room = _Room(self.snapshot, others)
        return any(room.first_broken(run) is None for run in runs)

    def _runs(self, job: Job) -> list[_Run]:
        """Return the ways in which a running job may go on, the one of least power first; none where it is unknown."""
        s = self.snapshot
        nodes = expand(job.nodes) if job.nodes else ()
        name = job.node_type or next((self.index.rack_of[n].node_type for n in nodes if n in self.index.rack_of), "")
        kind = self.case.site.node_types.get(name)
        if kind is None or job.hall not in self.index.halls or job.site not in (None, self.case.site.name):
            return []
        now = next((mode for mode in kind.modes if mode.name == job.mode), None)
        modes = [m for m in kind.modes if s.allow_raises or now is None or m.gpu_power_w <= now.gpu_power_w]
        runs = [self._run(job, kind, mode, nodes) for mode in modes]
        return sorted(runs, key=lambda run: run.hall_w)

    def _run(self, job: Job, kind: NodeType, mode: Mode, nodes: Sequence[str]) -> _Run:
        job_class = self.case.site.job_classes.get(job.job_class)
        gpu_w = max(0.0, gpu_power_w(kind, mode, job_class) - kind.idle_gpu_power_w)
        rack_w: dict[str, float] = {}
        drawing = gpus = 0 if nodes else job.gpus
        for node in nodes:
            rack = self.index.rack_of.get(node)
            if rack is not None and node not in self.fixed:
                own = gpus_of(job, (node,))
                drawing += own
                gpus += 0 if node in self.snapshot.down_nodes else own
                rack_w[rack.zone] = rack_w.get(rack.zone, 0.0) + own * gpu_w
        work = job.duration_s / gpu_speed(mode, job_class) / self.snapshot.slot_s
        slots = max(1, math.ceil(work - 1e-9))
        return _Run(job, kind, slots, rack_w, drawing * gpu_w, gpus)


class _Room:
    """Loads of the idle site and of what is added, against limits that are a little lower than they are."""

    def __init__(self, s: Snapshot, assignments: Sequence[Assignment] = ()) -> None:
        self.snapshot = s
        self.index = SiteIndex.of(s.site)
        self.halls = self.index.halls
        self.air = outdoor_air(s)
        base_w = idle_rack_w(s)[:, None] + jobs_w(s, assignments)
        rows = {rack.zone: row for row, rack in enumerate(s.site.racks())}
        self.racks: dict[str, Floats] = {zone: base_w[row] for zone, row in rows.items()}
        self.known: dict[tuple[str, float, float, Weather], HallLoad] = {}
        self.used = {key: np.zeros(s.slots, np.int64) for key in self._pools()}
        self.charge_w = {storage.zone: 0.0 for storage in s.site.storages}
        for storage in s.site.storages:
            self.charge_w[storage.zone] += storage.charge_w
        self.limits = self._limits()
        self.load_w = {zone: self._zone_w(zone) for zone in self.limits if zone != s.site.name}
        self.liquid_w, self.air_w = {}, {}
        for hall in s.site.halls:
            share = {rack.zone: s.site.node_types[rack.node_type].liquid_fraction for rack in hall.racks()}
            self.liquid_w[hall.zone] = sum((share[z] * self.racks[z] for z in share), np.zeros(s.slots))
            self.air_w[hall.zone] = sum(((1 - share[z]) * self.racks[z] for z in share), np.zeros(s.slots))

    def _pools(self) -> dict[tuple[str, str], int]:
        """Return the GPUs on open nodes by hall and node type, without those that are held."""
        closed = {*self.snapshot.off_nodes, *self.snapshot.down_nodes, *self.snapshot.stale_nodes}
        held = held_by_node(self.snapshot)
        self.most: dict[tuple[str, str], int] = {}
        for hall in self.snapshot.site.halls:
            for rack in hall.racks():
                nodes = [node for node in rack.nodes if node not in closed]
                taken = sum(count for node in nodes for count, _ in held.get(node, ()))
                gpus = self.snapshot.site.node_types[rack.node_type].gpus * len(nodes) - taken
                self.most[hall.zone, rack.node_type] = self.most.get((hall.zone, rack.node_type), 0) + gpus
        return self.most

    def _limits(self) -> dict[str, Floats]:
        """Return the limits of zones less margins, lowered by what the planner may lose to rounding and storage."""
        found = {}
        for zone, budget_w in zone_budgets(self.snapshot).items():
            limit_w = budget_w - self.snapshot.margin_w.get(zone, 0.0)
            found[zone] = limit_w * (1 - _PART) - _WATTS - self._charging_w(zone)
        if self.snapshot.site.name in found:
            found[self.snapshot.site.name] -= self._steps_w()
        return found

    def _charging_w(self, zone: str) -> float:
        """Return the most that storage which counts in a zone takes up."""
        stores = [storage for storage in self.snapshot.site.storages if storage.kind == "battery"]
        if zone == self.snapshot.site.name:
            return sum(storage.charge_w for storage in self.snapshot.site.storages)
        return sum(store.charge_w for store in stores if zone in self.index.feeds_above(store.zone))

    def _zone_w(self, zone: str) -> Floats:
        if zone in self.racks:
            return self.racks[zone].copy()
        if zone in self.index.feeds:
            racks = list(self.index.racks_under(zone))
        else:
            hall = self.halls[zone.split("/", maxsplit=1)[0]]
            racks = [r for row in hall.rows if zone in (hall.zone, row.zone) for r in row.racks]
        total: Floats = np.zeros(self.snapshot.slots)
        for rack in racks:
            total += self.racks[rack.zone]
        return total

    def _zones_of(self, run: _Run) -> dict[str, float]:
        """Return the zones with a limit that carry a run, and the power that it adds there in W."""
        hall = run.job.hall or ""
        found = {hall: run.hall_w}
        for rack, watts in run.rack_w.items():
            row = self.index.row_of_rack[rack].zone
            found[rack], found[row] = watts, found.get(row, 0.0) + watts
        for feed in self.index.feeds:
            under = self.index.racks_under(feed)
            names = {rack.zone for rack in under}
            found[feed] = sum(w for rack, w in run.rack_w.items() if rack in names)
            if not run.rack_w and any(rack.zone.split("/")[0] == hall for rack in under):
                found[feed] = run.hall_w
        return {zone: watts for zone, watts in found.items() if zone in self.load_w and watts > 0}

    def add(self, run: _Run, slots: int) -> None:
        """Count a run for some slots."""
        for zone, watts in self._zones_of(run).items():
            self.load_w[zone][:slots] += watts
        hall = run.job.hall or ""
        self.liquid_w[hall][:slots] += run.kind.liquid_fraction * run.hall_w
        self.air_w[hall][:slots] += (1 - run.kind.liquid_fraction) * run.hall_w
        if (hall, run.kind.name) in self.used:
            self.used[hall, run.kind.name][:slots] += run.gpus

    def first_broken(self, run: _Run) -> int | None:
        """Return the first slot of its work in which a run breaks a limit; None where it holds all of them."""
        end = min(run.slots, self.snapshot.slots)
        over = np.zeros(end, bool)
        for zone, watts in self._zones_of(run).items():
            over |= self.load_w[zone][:end] + watts > self.limits[zone][:end]
        pool = run.job.hall or "", run.kind.name
        if pool in self.used:
            over |= self.used[pool][:end] + run.gpus > self.most[pool]
        if run.hall_w > 0:
            for slot in range(end):
                if over[slot] or self._hall_broken(run, slot):
                    return slot
        return int(np.argmax(over)) if over.any() else None

    def _hall_broken(self, run: _Run, slot: int) -> bool:
        """Whether the run breaks the cooling of its hall or the limit at the meter in a slot."""
        hall = self.halls[run.job.hall or ""]
        share = run.kind.liquid_fraction
        load = self._hall(hall, slot, share * run.hall_w, (1 - share) * run.hall_w)
        spare = 1 - _PART
        for medium, heat_w in load.heat_w.items():
            slack_w = _WATTS + self.charge_w.get(hall.zone, 0.0) + self._air_slack_w(hall, medium)
            if heat_w > load.capacity_w[medium] * spare - slack_w:
                return True
        limit_w = self.limits.get(self.snapshot.site.name)
        if limit_w is None:
            return False
        others = sum(self._hall(o, slot, 0.0, 0.0).facility_power_w for o in self.halls.values() if o is not hall)
        return bool(load.facility_power_w + others > limit_w[slot])

    def _air_slack_w(self, hall: Hall, medium: str) -> float:
        """Return by how much the planner may count the heat of air too high where several node types share a hall."""
        kinds = self.snapshot.site.node_types
        racks = [(rack, kinds[rack.node_type]) for rack in hall.racks()]
        if medium != "air" or len({kind.name for _, kind in racks}) == 1:
            return 0.0
        most_w = sum(len(rack.nodes) * kind.max_power_w for rack, kind in racks)
        return hall.losses.quadratic_per_w * most_w**2

    def _steps_w(self) -> float:
        """Return by how much the planner may count plants too high whose power rises in steps."""
        stepped = [
            (hall, medium)
            for hall in self.halls.values()
            for medium in media(hall)
            if not all(kind_of(plant).convex and plant.units == 1 for plant in hall.plants if plant.serves == medium)
        ]
        most_w = 0.0
        for hall, medium in stepped:
            for air in set(self.air):
                capacity_w = medium_load(hall, medium, 0.0, air)[0]
                most_w = max(most_w, medium_load(hall, medium, capacity_w, air)[1])
        return _STEP * len(stepped) * most_w

    def _hall(self, hall: Hall, slot: int, liquid_w: float, air_w: float) -> HallLoad:
        loads = float(self.liquid_w[hall.zone][slot]) + liquid_w, float(self.air_w[hall.zone][slot]) + air_w
        key = hall.zone, *loads, self.air[slot]
        if key not in self.known:
            self.known[key] = hall_load(hall, *loads, self.air[slot])
        return self.known[key]
