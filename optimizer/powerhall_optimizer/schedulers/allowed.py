"""Power that jobs may hold in a zone per slot, in units that a workload manager counts."""

import math

from powerhall.hostlist import expand
from powerhall.plan.plan import Assignment, Plan, ZonePlan
from powerhall.runtime.errors import ConfigError

__all__ = ["allowed_units", "budget_zone", "units"]


def units(power_w: float, unit_w: float) -> int:
    """Return the units of a power, rounded up."""
    return math.ceil(power_w / unit_w - 1e-9)


def budget_zone(plan: Plan, name: str, setting: str) -> ZonePlan | None:
    """Return the zone of the plan (the site for "") whose budget is to be held; None where it has no budget."""
    site = plan.snapshot.site
    known = [site.name, *(hall.zone for hall in site.halls)]
    name = name or site.name
    if name not in known:
        raise ConfigError.field("settings", setting, name, f"must be one of {', '.join(known)}")
    return next((zone for zone in plan.zones if zone.zone == name and zone.budget_w), None)


def allowed_units(
    plan: Plan, zone: ZonePlan, unit_w: float, prepaid: frozenset[str] = frozenset(), prepaid_w: float = 0.0
) -> list[tuple[int, int]]:
    """Return per slot the units that jobs may hold, and those that the plan uses.

    Beyond the plan's own jobs there is room for the zone's headroom, less the overhead (losses, cooling) per watt of IT
    power that the plan has in this slot. Jobs on `prepaid` nodes hold none: these keep `prepaid_w` above idle free.
    """
    snapshot = plan.snapshot
    is_site = zone.zone == snapshot.site.name
    halls = {hall.zone for hall in snapshot.site.halls}
    it_w = [sum(z.planned_w[slot] for z in plan.zones if z.zone in halls) for slot in range(snapshot.slots)]
    free = {job.job_id: job for job in plan.assignments if prepaid and _is_on(job, prepaid)}
    room = []
    for slot, (planned_w, budget_w) in enumerate(zip(zone.planned_w, zone.budget_w, strict=True)):
        begin_s = snapshot.start_s + slot * snapshot.slot_s
        active = [
            job
            for job in plan.assignments
            if job.start_s < begin_s + snapshot.slot_s and job.end_s > begin_s and (is_site or job.hall == zone.zone)
        ]
        used = sum(units(job.gpus * job.gpu_power_w, unit_w) for job in active if job.job_id not in free)
        overhead = max(1.0, planned_w / it_w[slot]) if is_site and it_w[slot] else 1.0
        unused_w = prepaid_w - sum(_above_idle_w(job, plan) for job in active if job.job_id in free)
        spare_w = max(0.0, (budget_w - planned_w) / overhead - max(0.0, unused_w))
        room.append((used + math.floor(spare_w / unit_w), used))
    return room


def _is_on(job: Assignment, nodes: frozenset[str]) -> bool:
    return all(nodes.issuperset(expand(placement.nodes)) for placement in job.placements)


def _above_idle_w(job: Assignment, plan: Plan) -> float:
    return job.gpus * max(0.0, job.gpu_power_w - plan.snapshot.site.node_types[job.node_type].idle_gpu_power_w)
