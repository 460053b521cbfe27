"""The twin's scheduler of plans: starts, stops and re-caps jobs by the newest plan.

A job starts once its planned time has come, its GPUs are free, and the planned draw of all running jobs still fits
every budget. A start that is late because another job still runs therefore never puts a zone over its budget.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from powerhall.hostlist import expand
from powerhall.plan.plan import Assignment, Plan
from powerhall_twin.policies.admission import Admission, added_rack_w
from powerhall_twin.site.actions import Action, SetMode, Start, Stop
from powerhall_twin.site.cluster import Cluster
from powerhall_twin.site.queue import Queue

__all__ = ["PlanScheduler", "trim"]


@dataclass(slots=True)
class PlanScheduler:
    """Follows the newest plan."""

    plan: Plan | None = None
    late: set[str] = field(default_factory=set)

    def take(self, plan: Plan, cluster: Cluster) -> list[Action]:
        """Adopt a plan; return the stops and mode changes that are due at once."""
        self.plan = plan
        running = {entry.job_id: entry for entry in plan.assignments if entry.running}
        known = {job.job_id for job in plan.snapshot.jobs}
        actions: list[Action] = []
        for job_id, run in cluster.runs.items():
            entry = running.get(job_id)
            if entry is None and job_id in known:
                actions.append(Stop(job_id))
            elif entry is not None and entry.mode != run.mode.name:
                actions.append(SetMode(job_id, run.node_type.mode(entry.mode), entry.gpu_power_w))
            elif entry is not None:
                run.planned_gpu_w = entry.gpu_power_w
        return actions

    def ends_due(self, cluster: Cluster, now_s: float) -> list[Stop]:
        """Return the planned stops that are due: running jobs that the plan stops at a later curtailment."""
        if self.plan is None:
            return []
        waiting = {entry.job_id for entry in self.plan.waiting}
        ends = {e.job_id: e.end_s for e in self.plan.assignments if e.running and e.job_id in waiting}
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
        slices = cluster.take(trim(wanted, entry.gpus))
        if slices is None:
            return None
        kind = cluster.site.node_types[entry.node_type]
        mode = kind.mode(entry.mode)
        job = queue.records[entry.job_id].job
        return Start(job, entry.hall, kind, mode, slices, entry.gpu_power_w, left_s)


def trim(wanted: dict[str, int], gpus: int) -> dict[str, int]:
    """Cut the last node's GPUs where a gang is no multiple of a node."""
    left = gpus
    kept: dict[str, int] = {}
    for node, count in wanted.items():
        kept[node] = min(count, left)
        left -= kept[node]
    return {node: count for node, count in kept.items() if count > 0}
