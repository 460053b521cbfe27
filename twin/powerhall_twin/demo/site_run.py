"""A running site: jobs on simulated GPUs, agents that measure them, and the engine for all around them.

`SiteRun` moves the site tick by tick, follows the newest plan, and writes meters and intervals of jobs into the store.
"""

from dataclasses import dataclass, field

from powerhall.plan.plan import Plan
from powerhall.site.topology import Site
from powerhall.store.line_protocol import Point, encode
from powerhall_twin.demo.agent_pool import AgentPool, PoolStep
from powerhall_twin.demo.dashboard_data import DashboardWriter
from powerhall_twin.engine.measured_site import MeasuredSite, Reading
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.policies.plan_runner import PlanRunner
from powerhall_twin.site.placed_runs import PlacedRun, Slice
from powerhall_twin.site.scenario import Scenario

__all__ = ["JobStretch", "SiteRun"]


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
class SiteRun:
    """The running site; `stretches` maps a running job to its run in its present mode and the time since it has that.

    `breaches` counts the samples, of `samples`, in which any zone or plant was over its limit.
    """

    measured: MeasuredSite
    agents: AgentPool
    full_budget_w: float
    dashboards: DashboardWriter
    runner: PlanRunner = field(default_factory=PlanRunner)
    samples: int = 0
    breaches: int = 0
    mode_changes: int = 0
    curtailed_peak_w: float = 0.0
    curtailed_work_gpu_s: float = 0.0
    history: list[JobStretch] = field(default_factory=list)
    stretches: dict[str, tuple[PlacedRun, float]] = field(default_factory=dict)
    last_reading: Reading | None = None

    @property
    def site(self) -> Site:
        """The site file in force."""
        return self.measured.site

    @property
    def scenario(self) -> Scenario:
        """The scenario, with the site file in force."""
        return self.measured.state.scenario

    @property
    def outcome(self) -> SimulationOutcome:
        """The engine's totals; jobs, work and limits are in it once the run is closed."""
        return self.measured.sim.outcome

    @property
    def waiting(self) -> int:
        """The jobs that wait now."""
        return len(self.measured.state.waiting)

    @property
    def running(self) -> int:
        """The jobs that run now."""
        return len(self.measured.state.running)

    def adopt(self, plan: Plan) -> None:
        """Take a plan: stop jobs and change modes at once."""
        self.runner.take(plan, self.measured.state)
        self._record()

    def schedule(self) -> None:
        """Stop and start what is due by the plan and fits."""
        self.measured.put_moment()
        self.runner.follow(self.measured.state)
        self._record()

    def tick(self, dt_s: float, *, sample: bool) -> Reading:
        """Move the site on by `dt_s` seconds, then read the meters."""
        return self._step(dt_s, dt_s, sample=sample)

    def first_reading(self) -> Reading:
        """Let agents measure the idle site before the first plan; no time passes."""
        return self._step(1.0, 0.0, sample=True)

    def _step(self, agents_s: float, dt_s: float, *, sample: bool) -> Reading:
        measured, end_s = self.measured, self.measured.now_s + agents_s
        measured.put_moment()
        is_curtailed = measured.sim.limits_w[0] < self.full_budget_w - 1
        measured.put_loads()
        self.agents.step(PoolStep(end_s, agents_s, sample))
        before = measured.work_gpu_s()
        reading = measured.read(dt_s)
        self.samples += 1
        self.breaches += reading.over
        if is_curtailed and dt_s > 0.0:
            self.curtailed_peak_w = max(self.curtailed_peak_w, reading.facility_w)
            self.curtailed_work_gpu_s += measured.work_gpu_s() - before
        self._record()
        if sample:
            measured.sim.sample()
            self.dashboards.sample(self.site, end_s, self._meter_lines(reading, end_s))
        self.last_reading = reading
        return reading

    def close(self) -> None:
        """End the stretches of the jobs that still run, and count jobs, work and limits."""
        for job_id in list(self.stretches):
            self._close_stretch(job_id)
        self.measured.put_moment()
        self.measured.sim.close()

    def _record(self) -> None:
        """Record where a job started, ended, stopped or changed its mode since the last call."""
        self.measured.placed.follow(self.measured.state)
        runs = self.measured.placed.runs
        for job_id, (known, _) in list(self.stretches.items()):
            if runs.get(job_id) is not known:
                run = runs.get(job_id)
                self.mode_changes += run is not None and run.slices is known.slices
                self._close_stretch(job_id)
        for job_id, run in runs.items():
            if job_id not in self.stretches:
                self.stretches[job_id] = run, self.measured.now_s
                self.dashboards.interval(job_id, run.slices, self.measured.now_s)

    def _close_stretch(self, job_id: str) -> None:
        run, since_s = self.stretches.pop(job_id)
        now_s = self.measured.now_s
        if now_s <= since_s:
            return
        self.dashboards.interval(job_id, run.slices, since_s, now_s)
        self.history.append(
            JobStretch(job_id, run.job.job_class, run.hall, run.job.gpus, run.mode.name, since_s, now_s, run.slices)
        )

    def _meter_lines(self, reading: Reading, time_s: float) -> bytes:
        """Return the readings of the building's meters as line protocol."""
        site, time_ms = self.site.name, round(time_s * 1000)
        budgets = self.measured.state.budgets
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
