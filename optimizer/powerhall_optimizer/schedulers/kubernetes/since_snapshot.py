"""GPUs that pods took since the plan's snapshot: a plan that does not know of them starts nothing on their power.

A round takes minutes, in which a Deployment grows, or somebody starts or enlarges a job of their own.
"""

from collections.abc import Iterable, Mapping

from powerhall.hostlist import expand
from powerhall.plan.plan import Assignment, Plan
from powerhall.site.index import SiteIndex
from powerhall_optimizer.schedulers.allowed import allowed_units
from powerhall_optimizer.schedulers.kubernetes.gangs import holders
from powerhall_optimizer.schedulers.kubernetes.jobs import job_gpus
from powerhall_optimizer.schedulers.kubernetes.objects import Object, status_of
from powerhall_optimizer.schedulers.kubernetes.pod_requests import Holding
from powerhall_optimizer.schedulers.kubernetes.release_room import worst_gpu_w

__all__ = ["taken_since"]


def taken_since(plan: Plan, found: Mapping[str, Object], pods: Iterable[Holding], resource: str, now_s: float) -> str:
    """Return what was taken beyond the power that the plan leaves, as `8 GPUs in hall1`; "" where that is enough."""
    snapshot, index = plan.snapshot, SiteIndex.of(plan.snapshot.site)
    slot = min(snapshot.slots - 1, max(0, int(now_s - snapshot.start_s) // snapshot.slot_s))
    more, anywhere = _more_by_node(plan, found, pods, resource, now_s)
    for zone in plan.zones:
        if not zone.budget_w or zone.zone not in index.kinds:
            continue
        racks = index.racks_under(zone.zone)
        gpus = anywhere + sum(more.get(node, 0) for rack in racks for node in rack.nodes)
        room, used = allowed_units(plan, zone, 1.0)[slot]
        if gpus > 0 and gpus * max(worst_gpu_w(index.rack_type(rack)) for rack in racks) > room - used:
            return f"{gpus} GPUs in {zone.zone}"
    return ""


def _more_by_node(
    plan: Plan, found: Mapping[str, Object], pods: Iterable[Holding], resource: str, now_s: float
) -> tuple[dict[str, int], int]:
    """Return by node how many GPUs are in use beyond those of the plan (below 0: fewer), and those of pods to come."""
    index = SiteIndex.of(plan.snapshot.site)
    owned = {holder: name for name, raw in found.items() for holder in holders(raw)}
    bound: dict[str, dict[str, int]] = {}
    for one in pods:
        if one.node in index.rack_of:
            on = bound.setdefault(owned.get(one.owner, one.owner), {})
            on[one.node] = on.get(one.node, 0) + (one.gpus or index.node_type(one.node).gpus)
    more: dict[str, int] = {}
    shared = {job.job_id for job in plan.snapshot.jobs if job.gpu_share is not None}
    for job in plan.assignments:
        if not job.running and not _started(job, found, now_s):
            continue
        has = bound.pop(job.job_id, {})
        if job.job_id in found and status_of(found[job.job_id]) == "running":  # all of its pods may come
            if job.job_id in shared:  # a part of a GPU, which the plan counts once
                continue
            _add(more, dict.fromkeys(list(has)[:1], max(0, sum(has.values()) - job.gpus)))
            continue
        for place in job.placements:
            _add(more, dict.fromkeys(expand(place.nodes), -place.gpus_per_node))
        _add(more, has)
    for held in plan.snapshot.held:
        _add(more, dict.fromkeys(expand(held.nodes), -held.gpus))
    waits = {job.job_id for job in plan.snapshot.jobs if job.state == "waiting"}
    to_come = {name: raw for name, raw in found.items() if name in waits and status_of(raw) == "running"}
    started = {job.job_id for job in plan.assignments if _started(job, found, now_s)}
    anywhere = sum(
        max(0, job_gpus(raw, resource) - sum(bound.get(name, {}).values()))
        for name, raw in to_come.items()
        if name not in started
    )
    for has in bound.values():
        _add(more, has)
    for node in plan.snapshot.stale_nodes:  # they count at their maximum already
        more[node] = min(0, more.get(node, 0))
    return more, anywhere


def _add(to: dict[str, int], gpus: Mapping[str, int]) -> None:
    for node, count in gpus.items():
        to[node] = to.get(node, 0) + count


def _started(job: Assignment, found: Mapping[str, Object], now_s: float) -> bool:
    """Return whether this plan has started a job that waited."""
    raw = found.get(job.job_id)
    return not job.running and job.start_s <= now_s and raw is not None and status_of(raw) == "running"
