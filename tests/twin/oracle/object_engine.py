"""Event-driven simulation of a site: the power is constant from one event to the next.

Events are submissions, ends of jobs, and the ticks of a grid on which weather, budgets, prices and rounds change. The
draw and speed of a job come from `node_power.draw_of`, not from the planning figures of the policy.
"""

import math
from dataclasses import dataclass, field

from object_actions import Start, apply
from object_cluster import Cluster, Run
from object_guard import LimitGuard
from object_meters import Reading, SiteMeter
from object_queue import Queue
from object_view import Policy, PolicyView

from powerhall.jobs.model import Job
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Mode, NodeType, Site
from powerhall_twin.site.node_power import GpuDraw, draw_of
from powerhall_twin.site.scenario import Scenario

_MIN_STEP_S = 1.0
_DECISIONS = 8
"""A policy may answer an event in several steps: mode changes, then stops, then starts."""


class GpuDraws:
    """Draws of a site's job classes by node type and mode, each computed once."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._known: dict[tuple[str, str, str], GpuDraw] = {}

    def of(self, job: Job, kind: NodeType, mode: Mode) -> GpuDraw:
        """Return `draw_of` the job."""
        key = job.job_class, kind.name, mode.name
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = draw_of(self._site, job, kind, mode)
        return found


@dataclass(slots=True)
class SimulationOutcome:
    """Totals of a simulation. Work is in GPU seconds at full speed; `weighted_work` is work times the job's weight."""

    policy: str
    energy_j: float = 0.0
    it_energy_j: float = 0.0
    work_gpu_s: float = 0.0
    weighted_work: float = 0.0
    cost: float = 0.0
    jobs: int = 0
    jobs_done: int = 0
    stops: int = 0
    wait_s: float = 0.0
    over_budget_s: float = 0.0
    peak_w: float = 0.0
    guard: LimitGuard = field(default_factory=LimitGuard)
    times_s: list[float] = field(default_factory=list)
    facility_w: list[float] = field(default_factory=list)

    def add(self, reading: Reading, dt_s: float, price_per_mwh: float) -> None:
        """Count a stretch of constant power."""
        self.energy_j += reading.facility_w * dt_s
        self.it_energy_j += sum(load.it_power_w for load in reading.halls.values()) * dt_s
        self.cost += reading.facility_w * dt_s / 3.6e9 * price_per_mwh
        self.peak_w = max(self.peak_w, reading.facility_w)

    def work(self, run: Run, done_s: float) -> None:
        """Count work of a run in seconds at the fastest mode."""
        self.work_gpu_s += run.job.gpus * done_s
        self.weighted_work += run.job.weight * run.job.gpus * done_s

    def close(self, queue: Queue, end_s: float) -> None:
        """Count jobs and their mean waiting time until the first start."""
        submitted = [r for r in queue.records.values() if r.job.submit_s <= end_s]
        self.jobs = len(submitted)
        self.jobs_done = sum(r.ended_s is not None for r in submitted)
        self.stops = sum(r.stops for r in submitted)
        waits = [(r.started_s if r.started_s is not None else end_s) - r.job.submit_s for r in submitted]
        self.wait_s = sum(waits) / len(waits) if waits else 0.0


def actual_rack_w(cluster: Cluster, draws: GpuDraws) -> dict[str, float]:
    """Return the settled IT power of every rack in W: idle nodes plus the actual draw of the runs."""
    site = cluster.site
    rack_w = {r.zone: len(r.nodes) * site.node_types[r.node_type].idle_power_w for r in site.racks()}
    for run in cluster.runs.values():
        added_w = draws.of(run.job, run.node_type, run.mode).gpu_power_w - run.node_type.idle_gpu_power_w
        for part in run.slices:
            rack_w[cluster.index.rack_of[part.node].zone] += added_w * len(part.gpus)
    return rack_w


def simulate(scenario: Scenario, policy: Policy, name: str, *, tick_s: float = 300.0) -> SimulationOutcome:
    """Run the scenario under a policy; the same arguments give the same outcome."""
    site = scenario.site
    cluster, queue, meter = Cluster.of(site), Queue.of(scenario.jobs), SiteMeter.of(site)
    outcome, draws = SimulationOutcome(name), GpuDraws(site)
    for one in scenario.running:
        start = Start(one.job, one.hall, one.node_type, one.mode, one.slices, one.planned_gpu_w, one.left_s)
        cluster.start(start.run(scenario.start_s))
        queue.records[start.job.job_id].started_s = scenario.start_s
    now_s = scenario.start_s
    while now_s < scenario.end_s:
        budgets, weather = SiteIndex.of(site).budgets_at(now_s), scenario.weather(now_s)
        _decide(policy, PolicyView(site, cluster, queue, budgets, weather, now_s))
        grid_s = _next_grid_s(scenario, now_s, tick_s)
        next_s = min(grid_s, _next_event_s(cluster, queue, draws, now_s))
        reading = meter.read(actual_rack_w(cluster, draws), weather, next_s - now_s)
        before = len(outcome.guard.breaches)
        outcome.guard.check(site, reading, budgets, now_s)
        if len(outcome.guard.breaches) > before:
            outcome.over_budget_s += next_s - now_s
        price = scenario.price_per_mwh.at(now_s) if scenario.price_per_mwh else 0.0
        outcome.add(reading, next_s - now_s, price)
        outcome.times_s.append(now_s)
        outcome.facility_w.append(reading.facility_w)
        _advance(cluster, queue, outcome, draws, (now_s, next_s))
        now_s = next_s
    outcome.close(queue, scenario.end_s)
    return outcome


def _decide(policy: Policy, view: PolicyView) -> None:
    for _ in range(_DECISIONS):
        actions = list(policy.decide(view))
        for run in apply(view.cluster, actions, view.now_s):
            view.queue.stopped(run)
        for action in actions:
            if isinstance(action, Start):
                record = view.queue.records[action.job.job_id]
                record.started_s = view.now_s if record.started_s is None else record.started_s
        if not actions:
            return


def _next_grid_s(scenario: Scenario, now_s: float, tick_s: float) -> float:
    ticks = math.floor((now_s - scenario.start_s) / tick_s + 1e-9) + 1
    return min(scenario.start_s + ticks * tick_s, scenario.end_s)


def _next_event_s(cluster: Cluster, queue: Queue, draws: GpuDraws, now_s: float) -> float:
    """Return when the next job ends or is submitted, at least a second from now."""
    ends = (now_s + run.left_s / draws.of(run.job, run.node_type, run.mode).speed for run in cluster.runs.values())
    submit_s = queue.next_submit_s(now_s)
    return max(now_s + _MIN_STEP_S, min((*ends, math.inf if submit_s is None else submit_s), default=math.inf))


def _advance(
    cluster: Cluster, queue: Queue, outcome: SimulationOutcome, draws: GpuDraws, span: tuple[float, float]
) -> None:
    now_s, next_s = span
    for job_id, run in list(cluster.runs.items()):
        speed = draws.of(run.job, run.node_type, run.mode).speed
        done_s = min(run.left_s, speed * (next_s - now_s))
        run.left_s -= done_s
        outcome.work(run, done_s)
        if run.left_s <= 1e-3:
            cluster.stop(job_id)
            queue.records[job_id].ended_s = next_s
            queue.records[job_id].left_s = 0.0
