"""Which jobs that ask for parts of a GPU share one: those that run on it, others that join them, and waiting ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan.gpu_parts import gpu_parts, offers, share_of
from powerhall.plan.plan import Snapshot, gpu_speed
from powerhall.runtime.errors import Rejected
from powerhall.site.topology import NodeType
from powerhall_optimizer.problem.eligibility import may_run_at, may_run_on, running_type

__all__ = ["GpuGroup", "gpu_groups"]

_MOST_OPEN = 64
"""GPUs with room that are looked at for a part; beyond that the oldest stays as it is."""


@dataclass(slots=True)
class GpuGroup:
    """Jobs that share one GPU: a host that runs already, or None; and the parts left on each node type."""

    members: list[Job]
    left: dict[str, int]
    runs: Job | None = None

    def takes(self, job: Job, kinds: Mapping[str, NodeType]) -> bool:
        """Take a job in where its parts fit on every node type that is open to the group."""
        share = share_of(job)
        if share is None or any(gpu_parts(share, kinds[name]) > left for name, left in self.left.items()):
            return False
        for name in self.left:
            self.left[name] -= gpu_parts(share, kinds[name])
        self.members.append(job)
        return True


def gpu_groups(parts: Sequence[Job], snapshot: Snapshot) -> list[GpuGroup]:
    """Return the groups of jobs that share a GPU; the same jobs give the same groups."""
    running = _running_groups(parts, snapshot)
    waiting = _grouped([job for job in parts if not _joined(job, running, snapshot)], snapshot)
    return [*running, *waiting]


def _running_groups(parts: Sequence[Job], snapshot: Snapshot) -> list[GpuGroup]:
    """Return what runs on each GPU; a guest without a host, or that outlasts it, raises Rejected."""
    kinds = snapshot.site.node_types
    running = [job for job in parts if job.state == "running"]
    found: dict[tuple[str | None, int | str], GpuGroup] = {}
    for job in (job for job in running if job.gpus > 0):
        number = job.job_id if job.gpu_number is None or (job.nodes, job.gpu_number) in found else job.gpu_number
        name = running_type(snapshot.site, job) or ""
        group = GpuGroup([], {name: kinds[name].gpu_parts} if name in kinds else {}, runs=job)
        if not group.takes(job, kinds):
            group.members.append(job)
            group.left = dict.fromkeys(group.left, 0)
        found[job.nodes, number] = group
    for job in (job for job in running if job.gpus == 0):
        group_of = found.get((job.nodes, -1 if job.gpu_number is None else job.gpu_number))
        host = None if group_of is None else group_of.runs
        if group_of is None or host is None or job.duration_s > host.duration_s or not group_of.takes(job, kinds):
            text = f"must share its GPU {job.gpu_number} of {job.nodes} with a job that has it and runs longer"
            raise Rejected.field("snapshot", f"job {job.job_id}: gpus", job.gpus, text)
    return list(found.values())


def _joined(job: Job, running: Sequence[GpuGroup], snapshot: Snapshot) -> bool:
    """Whether a job runs on a GPU already, or starts at once on one that runs and has room: that costs no power."""
    if job.state == "running":
        return True
    if snapshot.starts_held or not may_run_at(job, snapshot.site.name):
        return False
    if max(job.submit_s, job.earliest_s or 0.0) > snapshot.start_s:
        return False
    kinds = snapshot.site.node_types
    return any(_may_join(job, group, snapshot) and group.takes(job, kinds) for group in running)


def _may_join(job: Job, group: GpuGroup, snapshot: Snapshot) -> bool:
    """Whether a job may start beside a running one: as alike, at an open node, and done before it in every mode."""
    site, host = snapshot.site, group.runs
    if host is None or host.nodes is None:
        return False
    kind = site.node_types.get(running_type(site, host) or "")
    if kind is None or not kind.gpu_fill or not offers(kind, job) or not may_run_on(job, host.hall or "", kind.name):
        return False
    if job.job_class != host.job_class or job.duration_s > host.duration_s:
        return False
    if snapshot.period_budgets and job.tenant != host.tenant:
        return False
    closed = host.nodes in {*snapshot.down_nodes, *snapshot.stale_nodes, *snapshot.off_nodes}
    if closed or (job.allowed_nodes is not None and host.nodes not in expand(job.allowed_nodes)):
        return False
    slowest = min(gpu_speed(mode, site.job_classes.get(job.job_class)) for mode in kind.modes)
    longest_s = max(1, math.ceil(job.duration_s / slowest / snapshot.slot_s - 1e-9)) * snapshot.slot_s
    return job.deadline_s is None or snapshot.start_s + longest_s <= job.deadline_s


def _grouped(jobs: Sequence[Job], snapshot: Snapshot) -> list[GpuGroup]:
    """Group waiting jobs that are alike but for share, weight and length: first fit, those of most weight first."""
    kinds = snapshot.site.node_types
    alike: dict[tuple[object, ...], list[GpuGroup]] = {}
    found: list[GpuGroup] = []
    for job in sorted(jobs, key=lambda job: (-job.weight, -job.duration_s, job.job_id)):
        names = tuple(n for n in kinds if offers(kinds[n], job) and (not job.node_types or n in job.node_types))
        groups = alike.setdefault((*_kind_of(job, snapshot), names), [])
        fills = all(kinds[name].gpu_fill for name in names)
        if not fills or not any(group.takes(job, kinds) for group in groups):
            group = GpuGroup([], {name: kinds[name].gpu_parts for name in names})
            group.takes(job, kinds)
            groups.append(group)
            found.append(group)
        groups[:] = [group for group in groups if not group.left or min(group.left.values()) > 0][-_MOST_OPEN:]
    return found


def _kind_of(job: Job, snapshot: Snapshot) -> tuple[object, ...]:
    """Jobs with the same kind may start together at one place."""
    first = max(0, math.ceil((max(job.submit_s, job.earliest_s or 0.0) - snapshot.start_s) / snapshot.slot_s))
    where = job.halls, job.node_types, job.sites, job.allowed_nodes
    payer = job.tenant if snapshot.period_budgets else None  # a shared GPU counts on one tenant's budget
    return job.job_class, where, first, job.deadline_s, job.preemptible, payer
