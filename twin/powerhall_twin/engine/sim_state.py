"""The state of a simulation: a scenario's site and jobs as arrays, and what policies do with them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from powerhall.hostlist import compress
from powerhall.jobs.model import Job
from powerhall.physics.weather import Weather
from powerhall.plan.snapshot import Held
from powerhall.site.topology import Site
from powerhall_twin.engine.columns import (
    BEGAN,
    BUDGETS,
    CHECKPOINT,
    CLS,
    DURATION,
    END_S,
    ENDED,
    FAMILY,
    FUTURE,
    GPUS,
    HALL,
    ID_RANK,
    KIND,
    LEFT,
    MODE,
    N_RUNNING,
    N_WAITING,
    NODE_COUNT,
    NODE_FIRST,
    POOL_FREE,
    POOL_NW,
    POOL_WHOLE,
    PREEMPTIBLE,
    RACK_FIRST,
    RACK_HALL,
    RACK_TYPE,
    RACK_ZONES,
    RANK,
    RUNNING_LIST,
    SPEED,
    STARTED,
    STATUS,
    UPDATED,
    VERSION,
    WAITING_LIST,
)
from powerhall_twin.engine.job_arrays import Draw, JobArrays, World, set_mode, start_run, stop_run
from powerhall_twin.engine.occupancy import Found, Limits, Occupancy, fits_beside, refresh_all, rooms_over
from powerhall_twin.engine.queue_passes import PassMemory
from powerhall_twin.engine.site_arrays import NO_LIMIT_NW, NW, Floats, Ints, SiteArrays
from powerhall_twin.site.scenario import Scenario

__all__ = ["SimState", "ready_s"]


def ready_s(job: Job) -> float:
    """Return when a job joins the queue: at its submission, or later where it may not start before."""
    return job.submit_s if job.earliest_s is None else max(job.submit_s, job.earliest_s)


@dataclass(slots=True)
class SimState:
    """Arrays of the running site, and the moment: budgets, weather and time.

    `units_out` are the units of plants, by number, that have failed, `seen_out` those that policies know of. Where they
    differ `physical` is the world as it is. `stored_j` is what stores hold, `delivered_w` what batteries
    deliver to the site and then to each zone, `out_of_use` counts changes of the nodes in
    use.
    """

    scenario: Scenario
    arrays: SiteArrays
    jobs: tuple[Job, ...]
    world: World
    memory: PassMemory
    now_s: float
    weather: Weather
    budgets: Mapping[str, float] = field(default_factory=dict)
    number_of: Mapping[str, int] = field(default_factory=dict)
    units_out: dict[int, int] = field(default_factory=dict)
    seen_out: dict[int, int] = field(default_factory=dict)
    unseen: list[tuple[float, int, int]] = field(default_factory=list)
    physical: World | None = None
    stored_j: Mapping[str, float] = field(default_factory=dict)
    delivered_w: Floats = field(default_factory=lambda: np.zeros(0))
    out_of_use: int = 0
    nodes_down: tuple[str, ...] = ()
    nodes_off: tuple[str, ...] = ()
    gpus_out: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, scenario: Scenario) -> "SimState":
        """Return the scenario at its start, with the jobs that already run on their nodes."""
        jobs = tuple(sorted(scenario.jobs, key=lambda job: (ready_s(job), job.job_id)))
        arrays = SiteArrays(scenario.site, tuple(dict.fromkeys(job.job_class for job in jobs)))
        weather = scenario.weather(scenario.start_s)
        number_of = {job.job_id: number for number, job in enumerate(jobs)}
        table, families = _job_arrays(arrays, jobs, {s.job.job_id: len(s.slices) for s in scenario.running})
        now = _empty(arrays)
        draw = Draw(now.zone_nw.copy(), now.pools[POOL_NW].copy())
        limits = Limits(arrays.limits_nw({}), np.array([np.inf]), np.full(2, np.inf))
        world = World(
            arrays.layout,
            limits,
            arrays.plants(weather, np.zeros(3 * len(scenario.site.halls)), {}),
            arrays.draws,
            table,
            now,
            draw,
        )
        state = cls(scenario, arrays, jobs, world, _memory(arrays, families, len(jobs)), scenario.start_s, weather)
        state.number_of = number_of
        state.delivered_w = np.zeros(1 + len(arrays.zones))
        state.set_weather(weather)
        for start in scenario.running:
            nodes = {part.node: len(part.gpus) for part in start.slices}
            mode = arrays.types[arrays.type_of[start.node_type.name]].modes.index(start.mode)
            state.start(number_of[start.job.job_id], nodes, mode, start.planned_gpu_w)
        return state

    def set_budgets(self, budgets: Mapping[str, float]) -> None:
        """Put budgets in force."""
        if budgets == self.budgets:
            return
        self.budgets = dict(budgets)
        self.put_limits()

    def put_limits(self) -> None:
        """Put the limits in force that budgets leave beside what batteries deliver, and stores take off plants."""
        limits, zone_nw = self.world.limits, self.arrays.limits_nw(self.budgets)
        more_nw = np.rint(self.delivered_w[1:] * NW).astype(np.int64)
        limits.zone_nw[:] = zone_nw + np.where(zone_nw == NO_LIMIT_NW, 0, more_nw)
        limits.site_w[0] = self.budgets.get(self.arrays.site.name, np.inf) + self.delivered_w[0]
        self._plants_changed()

    def change_site(self, site: Site) -> None:
        """Put other limits in force: those of a site of the same nodes and zones."""
        arrays = SiteArrays(site, self.arrays.classes)
        if (arrays.node_names, arrays.zones) != (self.arrays.node_names, self.arrays.zones):
            raise ValueError(f"site {site.name}: its nodes or zones have changed")
        self.arrays, self.scenario, self.budgets = arrays, replace(self.scenario, site=site), {}

    def would_hold(self, rack_nw: Ints) -> bool:
        """Return whether every budget and plant would hold with so much planned power in each rack, stores aside."""
        world, arrays = self.world, self.arrays
        site_w = self.budgets.get(arrays.site.name, np.inf)
        limits = Limits(arrays.limits_nw(self.budgets), np.array([site_w]), np.full(2, np.inf))
        plants = world.plants._replace(relief=np.zeros_like(world.plants.relief))
        full, over = _taken(arrays, rack_nw), np.zeros(len(arrays.zones), np.bool_)
        refresh_all(world.layout, plants, full)
        return not rooms_over(world.layout, limits, plants, full, over) and not over.any()

    def set_rise(self, more_w: float, most_w: float) -> None:
        """Let jobs start that add so much planned power to that of now; one that adds more than `most_w` never may."""
        limit_w = self.planned_w + more_w
        if limit_w != self.world.limits.rise_w[0]:
            self.world.limits.rise_w[:] = limit_w, most_w
            self.world.jobs.sizes[VERSION] += 1

    @property
    def rise_left_w(self) -> float:
        """What planned power may still rise by now, infinite without a ramp limit."""
        return float(self.world.limits.rise_w[0]) - self.planned_w

    def set_weather(self, weather: Weather) -> None:
        """Put a weather in force."""
        self.weather = weather
        relief = self.world.plants.relief
        self.world = self.world._replace(plants=self.arrays.plants(weather, relief, self.seen_out))
        self.physical = None
        if self.seen_out != self.units_out:
            self.physical = self.world._replace(plants=self.arrays.plants(weather, relief, self.units_out))
        self._plants_changed()

    def change_units_out(self, plant: int, by: int, seen_after_s: float) -> None:
        """Let units of a plant fail, or be repaired where `by` is negative; policies know of it later."""
        self.units_out[plant] = self.units_out.get(plant, 0) + by
        self.unseen.append((self.now_s + seen_after_s, plant, by))

    def see_plants(self) -> None:
        """Let policies know of what is due."""
        due = [one for one in self.unseen if one[0] <= self.now_s]
        for _, plant, by in due:
            self.seen_out[plant] = self.seen_out.get(plant, 0) + by
        if due or self.unseen:
            self.unseen = [one for one in self.unseen if one[0] > self.now_s]
            self.set_weather(self.weather)

    @property
    def next_seen_s(self) -> float:
        """When policies know of the next failure of a plant."""
        return min((one[0] for one in self.unseen), default=np.inf)

    @property
    def planned_w(self) -> float:
        """Planned power of the site at the meter, without what batteries deliver."""
        return float(self.world.now.hall_w.sum())

    def _plants_changed(self) -> None:
        refresh_all(self.world.layout, self.world.plants, self.world.now)
        refresh_all(self.world.layout, self.world.plants, self.memory.empty)
        self._limits_changed()

    def _limits_changed(self) -> None:
        self.world.jobs.sizes[VERSION] += 1
        self.world.jobs.sizes[BUDGETS] += 1

    @property
    def running(self) -> Ints:
        """Numbers of the running jobs, in the order of the queue."""
        jobs = self.world.jobs
        return np.sort(jobs.ints[RUNNING_LIST, : jobs.sizes[N_RUNNING]])

    @property
    def waiting(self) -> Ints:
        """Numbers of the waiting jobs, in the order of their rank."""
        jobs = self.world.jobs
        return jobs.ints[WAITING_LIST, : jobs.sizes[N_WAITING]].copy()

    def start(self, job: int, nodes: Mapping[str, int], mode: int, gpu_w: float) -> None:
        """Start a job on GPUs of these nodes of one hall and type at a planning figure per GPU; they must be free."""
        numbers, counts = self._places(nodes)
        jobs, layout = self.world.jobs, self.world.layout
        if (self.world.now.free[numbers] < counts).any():
            raise ValueError(f"job {self.jobs[job].job_id}: its GPUs are not free")
        waiting = self.waiting
        if (waiting == job).any():
            kept = waiting[waiting != job]
            jobs.ints[WAITING_LIST, : len(kept)] = kept
            jobs.sizes[N_WAITING] = len(kept)
        first = jobs.ints[NODE_FIRST, job]
        jobs.ints[NODE_COUNT, job] = len(numbers)
        jobs.pool[0, first : first + len(numbers)] = numbers
        jobs.pool[1, first : first + len(numbers)] = counts
        rack = layout.node_rack[numbers[0]]
        hall, kind = int(layout.racks[RACK_HALL, rack]), int(layout.racks[RACK_TYPE, rack])
        start_run(self.world, job, hall, kind, mode, self.arrays.added_nw(kind, gpu_w), self.now_s)

    def _places(self, nodes: Mapping[str, int]) -> tuple[Ints, Ints]:
        numbers = np.array([self.arrays.node_of[node] for node in nodes], np.int64)
        return numbers, np.array(list(nodes.values()), np.int64)

    def has_room(self, nodes: Mapping[str, int], gpu_w: float) -> bool:
        """Return whether GPUs of these nodes are free and their planned power fits every limit above them."""
        if not nodes or not all(node in self.arrays.node_of for node in nodes):
            return False
        numbers, counts = self._places(nodes)
        kind = int(self.world.layout.racks[RACK_TYPE, self.world.layout.node_rack[numbers[0]]])
        w = self.world
        nw = self.arrays.added_nw(kind, gpu_w)
        return fits_beside(w.layout, w.limits, w.plants, w.now, self.memory.found, numbers, counts, nw)

    def stop(self, job: int) -> None:
        """Stop and requeue a running job."""
        stop_run(self.world, job, self.now_s)

    def set_mode(self, job: int, mode: int, gpu_w: float) -> None:
        """Change the mode of a running job."""
        nw = self.arrays.added_nw(int(self.world.jobs.ints[KIND, job]), gpu_w)
        set_mode(self.world, job, mode, nw, self.now_s)

    def left_s(self, job: int) -> float:
        """Return the work left of a job in seconds at the fastest mode's speed."""
        jobs = self.world.jobs
        return max(
            0.0, float(jobs.floats[LEFT, job] - (self.now_s - jobs.floats[UPDATED, job]) * jobs.floats[SPEED, job])
        )

    def held_gpus(self) -> tuple[Held, ...]:
        """Return the failed GPUs of nodes that work otherwise, as a snapshot has them."""
        arrays, layout = self.arrays, self.world.layout
        kinds = (arrays.types[layout.racks[RACK_TYPE, layout.node_rack[node]]] for node in self.gpus_out)
        return tuple(
            Held(f"failed GPUs of {arrays.node_names[node]}", arrays.node_names[node], out, kind.idle_gpu_power_w)
            for (node, out), kind in zip(self.gpus_out.items(), kinds, strict=True)
        )

    def as_jobs(self) -> tuple[Job, ...]:
        """Return running and waiting jobs, also those that may not start yet, as a workload manager lists them."""
        return (*self._running_jobs(), *self._waiting_jobs())

    def _running_jobs(self) -> Iterator[Job]:
        jobs, arrays = self.world.jobs, self.arrays
        for j in self.running.tolist():
            first, kind = jobs.ints[NODE_FIRST, j], arrays.types[jobs.ints[KIND, j]]
            names = (arrays.node_names[n] for n in jobs.pool[0, first : first + jobs.ints[NODE_COUNT, j]])
            yield msgspec.structs.replace(
                self.jobs[j],
                duration_s=max(1.0, self.left_s(j)),
                state="running",
                hall=arrays.site.halls[jobs.ints[HALL, j]].zone,
                node_type=kind.name,
                mode=kind.modes[jobs.ints[MODE, j]].name,
                nodes=compress(names),
                start_s=float(jobs.floats[BEGAN, j]),
            )

    def _waiting_jobs(self) -> Iterator[Job]:
        jobs = self.world.jobs
        early = [j for j in np.flatnonzero(jobs.ints[STATUS] == FUTURE) if self.jobs[j].submit_s <= self.now_s]
        for j in np.sort(np.concatenate((self.waiting, np.array(early, np.int64)))).tolist():
            yield msgspec.structs.replace(
                self.jobs[j], state="waiting", duration_s=max(1.0, float(jobs.floats[LEFT, j]))
            )


def _empty(arrays: SiteArrays) -> Occupancy:
    return _taken(arrays, arrays.idle_rack_nw)


def _taken(arrays: SiteArrays, rack_nw: Ints) -> Occupancy:
    """Return all GPUs free, and so much planned power in each rack."""
    layout = arrays.layout
    _, _, hall, kind = layout.racks[:, :-1]
    nodes_of_rack, zones_of_rack = np.diff(layout.racks[RACK_FIRST]), np.diff(layout.racks[RACK_ZONES])
    at = hall * len(arrays.types) + kind
    halls = len(arrays.site.halls)
    zone_nw, pools = np.zeros(len(arrays.zones), np.int64), np.zeros((3, halls * len(arrays.types)), np.int64)
    np.add.at(zone_nw, layout.rack_zone, np.repeat(rack_nw, zones_of_rack))
    np.add.at(pools[POOL_NW], at, rack_nw)
    np.add.at(pools[POOL_WHOLE], at, nodes_of_rack)
    pools[POOL_FREE] = pools[POOL_WHOLE] * np.tile(layout.type_gpus, halls)
    free = layout.type_gpus[kind[layout.node_rack]]
    return Occupancy(free, nodes_of_rack.copy(), pools, zone_nw, np.zeros(halls))


def _memory(arrays: SiteArrays, families: int, jobs: int) -> PassMemory:
    nodes, halls = len(arrays.node_names), len(arrays.site.halls)
    racks, zones = len(arrays.idle_rack_nw), len(arrays.zones)
    ints = np.int64
    found = Found(
        np.zeros(nodes, ints), np.zeros(5, ints), np.zeros(zones, ints), np.zeros(halls, ints), np.zeros(racks, ints)
    )
    return PassMemory(
        found,
        _empty(arrays),
        _empty(arrays),
        _empty(arrays),
        np.full((2, families), -1, ints),
        np.full((2, families), -1, ints),
        np.full((3, families), -1, ints),
        np.full(2, -1, ints),
        np.full(1, np.inf),
        np.zeros(nodes, ints),
        np.zeros(zones, np.bool_),
        np.zeros(jobs, ints),
        np.zeros(jobs),
    )


def _job_arrays(arrays: SiteArrays, jobs: Sequence[Job], running: Mapping[str, int]) -> tuple[JobArrays, int]:
    n, class_of = len(jobs), {name: number for number, name in enumerate(arrays.classes)}
    keys = [(job.job_class, job.halls, job.node_types) for job in jobs]
    family_of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    halls = [[not key[1] or hall.zone in key[1] for hall in arrays.site.halls] for key in family_of]
    types = [[not key[2] or kind.name in key[2] for kind in arrays.types] for key in family_of]
    least = min(kind.gpus for kind in arrays.types)
    sizes = np.array([max(-(-job.gpus // least), running.get(job.job_id, 0)) for job in jobs], np.int64)
    ids = {job_id: rank for rank, job_id in enumerate(sorted(job.job_id for job in jobs))}
    ints, floats = np.zeros((18, n), np.int64), np.zeros((12, n))
    ints[GPUS] = [job.gpus for job in jobs]
    ints[CLS] = [class_of[job.job_class] for job in jobs]
    ints[FAMILY] = [family_of[key] for key in keys]
    ints[RANK] = np.arange(n)
    ints[ID_RANK] = [ids[job.job_id] for job in jobs]
    ints[PREEMPTIBLE] = [job.preemptible for job in jobs]
    ints[STATUS] = FUTURE
    ints[NODE_FIRST] = np.cumsum(sizes) - sizes
    floats[DURATION] = floats[LEFT] = [job.duration_s for job in jobs]
    floats[CHECKPOINT] = [job.checkpoint_cost_s for job in jobs]
    floats[[STARTED, ENDED]], floats[END_S], floats[SPEED] = np.nan, np.inf, 1.0
    pool, counts = np.zeros((2, int(sizes.sum())), np.int64), np.zeros(4, np.int64)
    may = (
        np.array(halls, np.bool_).reshape(len(family_of), len(arrays.site.halls)),
        np.array(types, np.bool_).reshape(len(family_of), len(arrays.types)),
    )
    return JobArrays(ints, floats, *may, pool, counts), len(family_of)
