"""The file scheduler of the twin: starts, stops and re-caps jobs as a plan says.

A job starts once its planned time has come, its GPUs are free, and the planned draw of everything that runs still fits
every budget: a plan whose predecessors run late never puts a zone over its budget.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from powerhall.hostlist import expand
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Assignment, Plan
from powerhall.site.topology import Site
from powerhall_twin.site.actions import Action, SetMode, Start, Stop
from powerhall_twin.site.building_meters import SiteMeter
from powerhall_twin.site.cluster import Cluster
from powerhall_twin.site.queue import Queue

__all__ = ["Admission", "PlanScheduler", "planned_rack_w"]


def planned_rack_w(cluster: Cluster) -> dict[str, float]:
    """Return the IT power of every rack as planned: idle nodes, and the planned draw of every run."""
    rack_w = {
        rack.zone: len(rack.nodes) * cluster.site.node_types[rack.node_type].idle_power_w
        for rack in cluster.site.racks()
    }
    for run in cluster.runs.values():
        added_w = max(0.0, run.planned_gpu_w - run.kind.idle_gpu_power_w)
        for part in run.slices:
            rack_w[cluster.index.rack_of[part.node].zone] += added_w * len(part.gpus)
    return rack_w


@dataclass(slots=True)
class Admission:
    """Says whether planned power fits the budgets in force and the cooling in this weather."""

    site: Site
    budgets: Mapping[str, float]
    weather: Weather
    rack_w: dict[str, float]
    meter: SiteMeter

    @classmethod
    def of(cls, cluster: Cluster, budgets: Mapping[str, float], weather: Weather) -> "Admission":
        """Start from what runs."""
        return cls(cluster.site, budgets, weather, planned_rack_w(cluster), SiteMeter.of(cluster.site))

    def fits(self, rack_w: Mapping[str, float]) -> bool:
        """Whether this load is within every budget and every cooling capacity."""
        reading = self.meter.read(rack_w, self.weather, 0.0)
        powers = all(reading.power_w(self.site, zone) <= budget_w + 1e-6 for zone, budget_w in self.budgets.items())
        return powers and all(load.cooled for load in reading.halls.values())

    def holds(self) -> bool:
        """Whether what runs fits."""
        return self.fits(self.rack_w)

    def admit(self, added_w: Mapping[str, float]) -> bool:
        """Add a load per rack if everything still fits; says whether it was added."""
        trial = {rack: power_w + added_w.get(rack, 0.0) for rack, power_w in self.rack_w.items()}
        if not self.fits(trial):
            return False
        self.rack_w = trial
        return True


def added_rack_w(cluster: Cluster, start: Start) -> dict[str, float]:
    """Return what a start adds to each rack in W, as planned."""
    each_w = max(0.0, start.planned_gpu_w - start.kind.idle_gpu_power_w)
    added: dict[str, float] = {}
    for part in start.slices:
        rack = cluster.index.rack_of[part.node].zone
        added[rack] = added.get(rack, 0.0) + each_w * len(part.gpus)
    return added


@dataclass(slots=True)
class PlanScheduler:
    """Follows the newest plan."""

    plan: Plan | None = None
    late: set[str] = field(default_factory=set)

    def take(self, plan: Plan, cluster: Cluster) -> list[Action]:
        """Adopt a plan; return the stops and mode changes that it asks for at once."""
        self.plan = plan
        keep = {entry.job_id: entry for entry in plan.assignments if entry.running}
        known = {job.job_id for job in plan.snapshot.jobs}
        actions: list[Action] = []
        for job_id, run in cluster.runs.items():
            entry = keep.get(job_id)
            if entry is None and job_id in known:
                actions.append(Stop(job_id))
            elif entry is not None and entry.mode != run.mode.name:
                actions.append(SetMode(job_id, run.kind.mode(entry.mode), entry.gpu_power_w))
            elif entry is not None:
                run.planned_gpu_w = entry.gpu_power_w
        return actions

    def ends_due(self, cluster: Cluster, now_s: float) -> list[Stop]:
        """Return the stops that the plan foresees for later and that have come: jobs shed at a coming curtailment."""
        if self.plan is None:
            return []
        shed = {entry.job_id for entry in self.plan.waiting}
        ends = {e.job_id: e.end_s for e in self.plan.assignments if e.running and e.job_id in shed}
        return [Stop(job_id) for job_id, end_s in ends.items() if end_s <= now_s and job_id in cluster.runs]

    def due(self, cluster: Cluster, queue: Queue, admission: Admission, now_s: float) -> Iterator[Start]:
        """Yield the starts that are due and fit, earliest first; the caller applies them at once."""
        if self.plan is None:
            return
        entries = [e for e in self.plan.assignments if not e.running and e.start_s <= now_s]
        for entry in sorted(entries, key=lambda e: (e.start_s, e.job_id)):
            record = queue.records.get(entry.job_id)
            if record is None or record.ended_s is not None or entry.job_id in cluster.runs:
                continue
            start = self._start(cluster, entry, record.left_s, queue)
            if start is not None and admission.admit(added_rack_w(cluster, start)):
                yield start
            elif now_s - entry.start_s > 0:
                self.late.add(entry.job_id)

    def _start(self, cluster: Cluster, entry: Assignment, left_s: float, queue: Queue) -> Start | None:
        wanted = {node: place.gpus_per_node for place in entry.placements for node in expand(place.nodes)}
        slices = cluster.take(_trim(wanted, entry.gpus))
        if slices is None:
            return None
        kind = cluster.site.node_types[entry.node_type]
        mode = kind.mode(entry.mode)
        job = queue.records[entry.job_id].job
        return Start(job, entry.hall, kind, mode, slices, entry.gpu_power_w, left_s)


def _trim(wanted: dict[str, int], gpus: int) -> dict[str, int]:
    """Cut the last node's GPUs where a gang is no multiple of a node."""
    left = gpus
    kept: dict[str, int] = {}
    for node, count in wanted.items():
        kept[node] = min(count, left)
        left -= kept[node]
    return {node: count for node, count in kept.items() if count > 0}
