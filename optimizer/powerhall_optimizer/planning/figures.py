"""The figures of a plan over its horizon: jobs, work, energy, cost, water."""

import msgspec

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Assignment, Plan
from powerhall.site.index import SiteIndex

__all__ = ["Figures", "figures", "figures_of", "multi_site_figures"]


class Figures(msgspec.Struct, frozen=True):
    """Totals of a plan over its horizon, in base units."""

    jobs_running: int
    jobs_started: int
    jobs_waiting: int
    work_gpu_s: float
    energy_j: float
    cost: float
    stale_share: float
    jobs_left_out: int = 0
    water_l: float = 0.0
    it_energy_j: float = 0.0


def figures(plan: Plan) -> Figures:
    """Return the plan's figures; energy and cost are those of the whole site at the meter."""
    s = plan.snapshot
    end_s = s.start_s + s.slots * s.slot_s
    site_w = next((zone.planned_w for zone in plan.zones if zone.zone == s.site.name), ())
    energy = [w * s.slot_s for w in site_w]
    price = s.price_per_mwh or (0.0,) * len(energy)
    nodes = len(SiteIndex.of(s.site).rack_of)
    halls = {hall.zone for hall in s.site.halls}
    running = sum(a.running for a in plan.assignments)
    return Figures(
        running,
        len(plan.assignments) - running,
        len(plan.waiting),
        sum(a.gpus * (min(a.end_s, end_s) - a.start_s) * _speed(plan, a) for a in plan.assignments),
        float(sum(energy)),
        sum(e / 3.6e9 * p for e, p in zip(energy, price, strict=True)),
        len(s.stale_nodes) / max(1, nodes),
        len(s.left_out),
        float(sum(sum(plant.water_l) for plant in plan.plants)),
        float(sum(sum(zone.planned_w) for zone in plan.zones if zone.zone in halls) * s.slot_s),
    )


def multi_site_figures(plan: MultiSitePlan) -> Figures:
    """Return the figures of all sites together."""
    parts = [(figures(part), len(SiteIndex.of(part.snapshot.site).rack_of)) for part in plan.plans]
    total = {
        name: sum(getattr(part, name) for part, _ in parts)
        for name in Figures.__struct_fields__
        if name != "stale_share"
    }
    stale = sum(part.stale_share * nodes for part, nodes in parts) / max(1, sum(nodes for _, nodes in parts))
    return Figures(stale_share=stale, **total)


def figures_of(plan: Plan | MultiSitePlan) -> Figures:
    """Return the figures of a plan of one site or of several."""
    return multi_site_figures(plan) if isinstance(plan, MultiSitePlan) else figures(plan)


def _speed(plan: Plan, entry: Assignment) -> float:
    return SiteIndex.of(plan.snapshot.site).mode(entry.node_type, entry.mode).speed
