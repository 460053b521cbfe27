"""A running site: jobs on simulated GPUs, agents that measure them, meters, and a check of every budget.

`SiteRun` advances the site tick by tick and applies the actions that a scheduler decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.store.line_protocol import Point, encode
from powerhall_twin.demo.agent_pool import AgentPool, PoolStep
from powerhall_twin.demo.dashboard_data import DashboardWriter
from powerhall_twin.site.actions import Action, SetMode, Start, apply
from powerhall_twin.site.building_meters import Reading, SiteMeter
from powerhall_twin.site.cluster import Cluster, Slice
from powerhall_twin.site.job_behaviour import behaviour_of, speed_at
from powerhall_twin.site.limit_guard import LimitGuard
from powerhall_twin.site.queue import Queue
from powerhall_twin.site.scenario import Scenario
from powerhall_twin.site.simulated_nodes import INLET_C, SimulatedNodes

__all__ = ["JobStretch", "SiteRun", "SiteTotals"]


@dataclass(frozen=True, slots=True)
class JobStretch:
    """One stretch of a job in one mode, for the Gantt chart."""

    job_id: str
    job_class: str
    hall: str
    gpus: int
    mode: str
    start_s: float
    end_s: float
    slices: tuple[Slice, ...]


@dataclass(slots=True)
class SiteTotals:
    """Totals of the run; work in GPU seconds at full speed."""

    energy_j: float = 0.0
    it_energy_j: float = 0.0
    cost: float = 0.0
    work_gpu_s: float = 0.0
    weighted_work: float = 0.0
    curtailed_s: float = 0.0
    curtailed_work_gpu_s: float = 0.0
    peak_w: float = 0.0
    curtailed_peak_w: float = 0.0
    jobs_done: int = 0
    stops: int = 0
    mode_changes: int = 0


@dataclass(slots=True)
class SiteRun:
    """The state of a running site; `stretches` maps a running job to its power mode and the time since it has that."""

    scenario: Scenario
    cluster: Cluster
    queue: Queue
    nodes: SimulatedNodes
    agents: AgentPool
    meter: SiteMeter
    full_budget_w: float
    dashboards: DashboardWriter
    guard: LimitGuard = field(default_factory=LimitGuard)
    totals: SiteTotals = field(default_factory=SiteTotals)
    history: list[JobStretch] = field(default_factory=list)
    stretches: dict[str, tuple[str, float]] = field(default_factory=dict)
    excess_k: dict[str, float] = field(default_factory=dict)
    last_reading: Reading | None = None

    @property
    def site(self) -> Site:
        """The site file in force."""
        return self.scenario.site

    def act(self, actions: Iterable[Action], now_s: float) -> None:
        """Apply actions and record the history of every job that they change."""
        wanted = list(actions)
        for action in wanted:
            if not isinstance(action, Start):
                self._close_stretch(action.job_id, now_s)
        self.totals.mode_changes += sum(isinstance(action, SetMode) for action in wanted)
        for run in apply(self.cluster, wanted, now_s):
            self.queue.stopped(run)
            self.totals.stops += 1
        for job_id, run in self.cluster.runs.items():
            if self.stretches.get(job_id, ("", 0.0))[0] != run.mode.name:
                self.stretches[job_id] = run.mode.name, now_s
                self.dashboards.interval(job_id, run.slices, now_s)
            record = self.queue.records[job_id]
            record.started_s = now_s if record.started_s is None else record.started_s

    def tick(self, now_s: float, dt_s: float, *, sample: bool) -> Reading:
        """Advance the site by `dt_s` seconds, then meter it and check the budgets."""
        end_s = now_s + dt_s
        inlet_c = {hall.zone: INLET_C + self.excess_k.get(hall.zone, 0.0) for hall in self.site.halls}
        self.nodes.apply(self.cluster, now_s, inlet_c)
        self.agents.step(PoolStep(end_s, dt_s, sample))
        budgets, weather = SiteIndex.of(self.site).budgets_at(now_s), self.scenario.weather(now_s)
        reading = self.meter.read(self._rack_w(), weather, dt_s)
        self.excess_k = dict(reading.excess_k)
        self.guard.check(self.site, reading, budgets, now_s)
        self._count(reading, budgets[self.site.name], now_s, dt_s)
        self._work(now_s, end_s, curtailed=budgets[self.site.name] < self.full_budget_w - 1)
        if sample:
            self.dashboards.sample(self.site, end_s, self._meter_lines(reading, budgets, end_s))
        self.last_reading = reading
        return reading

    def close(self, now_s: float) -> None:
        """End the stretches of the jobs that still run."""
        for job_id in list(self.stretches):
            self._close_stretch(job_id, now_s)

    def _close_stretch(self, job_id: str, now_s: float) -> None:
        run, known = self.cluster.runs.get(job_id), self.stretches.pop(job_id, None)
        if run is None or known is None or now_s <= known[1]:
            return
        job = run.job
        self.dashboards.interval(job_id, run.slices, known[1], now_s)
        self.history.append(
            JobStretch(job_id, job.job_class, run.hall, job.gpus, known[0], known[1], now_s, run.slices)
        )

    def _rack_w(self) -> dict[str, float]:
        return {rack.zone: sum(map(self.nodes.power_w, rack.nodes)) for rack in self.site.racks()}

    def _count(self, reading: Reading, budget_w: float, now_s: float, dt_s: float) -> None:
        t = self.totals
        t.energy_j += reading.facility_w * dt_s
        t.it_energy_j += sum(load.it_power_w for load in reading.halls.values()) * dt_s
        price = self.scenario.price_per_mwh
        t.cost += reading.facility_w * dt_s / 3.6e9 * (price.at(now_s) if price else 0.0)
        t.peak_w = max(t.peak_w, reading.facility_w)
        if budget_w < self.full_budget_w - 1:
            t.curtailed_s += dt_s
            t.curtailed_peak_w = max(t.curtailed_peak_w, reading.facility_w)

    def _work(self, now_s: float, end_s: float, *, curtailed: bool) -> None:
        for job_id, run in list(self.cluster.runs.items()):
            slowest = min(self.nodes.clock_ratio(part.node, part.gpus[0]) for part in run.slices)
            done_s = min(run.left_s, speed_at(slowest, behaviour_of(run.job.job_class).clock_share) * (end_s - now_s))
            run.left_s -= done_s
            self.totals.work_gpu_s += run.job.gpus * done_s
            self.totals.weighted_work += run.job.weight * run.job.gpus * done_s
            self.totals.curtailed_work_gpu_s += run.job.gpus * done_s if curtailed else 0.0
            if run.left_s <= 1e-3:
                self._close_stretch(job_id, end_s)
                self.cluster.stop(job_id)
                record = self.queue.records[job_id]
                record.ended_s, record.left_s = end_s, 0.0
                self.totals.jobs_done += 1

    def _meter_lines(self, reading: Reading, budgets: dict[str, float], time_s: float) -> bytes:
        """Return the readings of the building's meters as line protocol."""
        site, time_ms = self.site.name, round(time_s * 1000)
        points = []
        for hall, load in reading.halls.items():
            fields: dict[str, float | str] = {
                "it_power_w": load.it_power_w,
                "cooling_power_w": load.cooling_power_w,
                "loss_power_w": load.loss_power_w,
                "facility_power_w": load.facility_power_w,
                **load.cooling_fields(),
            }
            if hall in budgets:
                fields |= {"budget_w": budgets[hall], "headroom_w": budgets[hall] - load.it_power_w}
            points.append(Point("hall_10s", {"site": site, "hall": hall}, fields, time_ms))
            for medium, heat_w in load.heat_w.items():
                tags = {"site": site, "hall": hall, "device": f"cooling_{medium}"}
                points.append(
                    Point("facility", {**tags, "point": "heat_w"}, {"value": heat_w, "quality": 1.0}, time_ms)
                )
                capacity = {"value": load.capacity_w[medium], "quality": 1.0}
                points.append(Point("facility", {**tags, "point": "capacity_w"}, capacity, time_ms))
        loads = reading.halls.values()
        budget_w = budgets[site]
        fields = {
            "it_power_w": sum(load.it_power_w for load in loads),
            "cooling_power_w": sum(load.cooling_power_w for load in loads),
            "loss_power_w": sum(load.loss_power_w for load in loads),
            "facility_power_w": reading.facility_w,
            "budget_w": budget_w,
            "headroom_w": budget_w - reading.facility_w,
        }
        points.append(Point("site_10s", {"site": site}, fields, time_ms))
        weather = self.scenario.weather(time_s)
        air: dict[str, float | str] = {"dry_bulb_c": weather.dry_bulb_c, "wet_bulb_c": weather.wet_bulb_c}
        points.append(Point("weather", {"site": site}, air, time_ms))
        return b"".join(encode(point) for point in points)
