"""Publish a verified plan to the store (points and document) and to plan.json."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from powerhall.plan.gpu_parts import gpus_counted
from powerhall.plan.multi_site import MultiSitePlan, write_multi_site_plan
from powerhall.plan.plan import Plan
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.files import replace_files
from powerhall.site.index import SiteIndex, ZoneKind
from powerhall.store import Store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.leases.newest_plan import note_newest
from powerhall_optimizer.planning.checked import check_encoded
from powerhall_optimizer.planning.figures import figures
from powerhall_optimizer.shed.ladder import ladder
from powerhall_optimizer.verify.multi_site import verify_multi_site
from powerhall_optimizer.verify.plan import verify_plan

__all__ = ["multi_site_key", "plan_points", "publish", "publish_multi_site", "publish_plans", "site_file"]

_MOST_ZONE_POINTS = 100_000
_CHUNK_BYTES = 4_000_000


def _zone_points(plan: Plan) -> Iterator[Point]:
    """Points per zone and slot; racks and rows are left out where they would be too many."""
    s = plan.snapshot
    kinds = SiteIndex.of(s.site).kinds
    few = len(plan.zones) * s.slots <= _MOST_ZONE_POINTS
    for zone in plan.zones:
        if kinds.get(zone.zone) in (ZoneKind.ROW, ZoneKind.RACK) and not few:
            continue
        for slot, planned_w in enumerate(zone.planned_w):
            fields: dict[str, float | str] = {"planned_w": float(planned_w)}
            if zone.budget_w:
                fields["budget_w"] = float(zone.budget_w[slot])
                fields["headroom_w"] = float(zone.budget_w[slot] - planned_w)
            if zone.heat_w:
                fields["heat_w"] = float(zone.heat_w[slot])
                fields["cooling_capacity_w"] = float(zone.cooling_capacity_w[slot])
            if zone.price_per_mw:
                fields["price_per_mw"] = zone.price_per_mw[slot]
            time_ms = (s.start_s + slot * s.slot_s) * 1000
            yield Point("plan_zone", {"site": s.site.name, "zone": zone.zone}, fields, time_ms)


def _plant_points(plan: Plan) -> Iterator[Point]:
    """Yield points per cooling plant and slot: units to run, heat, power and water."""
    s = plan.snapshot
    for entry in plan.plants:
        tags = {"site": s.site.name, "hall": entry.hall, "plant": entry.plant}
        for slot, units in enumerate(entry.units):
            fields: dict[str, float | str] = {"units": float(units), "heat_w": float(entry.heat_w[slot])}
            fields |= {"power_w": float(entry.power_w[slot]), "water_l": float(entry.water_l[slot])}
            yield Point("plan_plant", tags, fields, (s.start_s + slot * s.slot_s) * 1000)


def _storage_points(plan: Plan) -> Iterator[Point]:
    """Yield points per storage unit and slot: its power, and its content at the slot's start."""
    s = plan.snapshot
    sizes = {storage.name: storage.capacity_j for storage in s.site.storages}
    for entry in plan.storages:
        for slot, power_w in enumerate(entry.power_w):
            fields: dict[str, float | str] = {"power_w": float(power_w), "stored_j": float(entry.stored_j[slot])}
            fields["soc_percent"] = 100.0 * entry.stored_j[slot] / max(1.0, sizes[entry.name])
            if entry.temp_c:
                fields["temp_c"] = entry.temp_c[slot]
            time_ms = (s.start_s + slot * s.slot_s) * 1000
            yield Point("plan_storage", {"site": s.site.name, "storage": entry.name}, fields, time_ms)


def _job_points(plan: Plan) -> Iterator[Point]:
    s = plan.snapshot
    weights = {job.job_id: job for job in s.jobs}
    rows: list[dict[str, float | str]] = [
        {
            "job": a.job_id,
            "state": "running" if a.running else "planned",
            "hall": a.hall,
            "mode": a.mode,
            "gpus": gpus_counted(weights[a.job_id]),
            "power_w": a.gpus * a.gpu_power_w,
            "start_s": float(a.start_s),
            "end_s": float(a.end_s),
            "weight": weights[a.job_id].weight,
            "reason": a.reason,
        }
        for a in plan.assignments
    ]
    rows += [
        {
            "job": w.job_id,
            "state": "waiting",
            "gpus": gpus_counted(weights[w.job_id]),
            "power_w": 0.0,
            "start_s": 0.0,
            "end_s": 0.0,
            "weight": weights[w.job_id].weight,
            "reason": w.reason,
            "what_if": "; ".join(w.what_if),
        }
        for w in plan.waiting
    ]
    rows += [
        {
            "job": entry.job_id,
            "state": "left out",
            "gpus": float(entry.gpus),
            "power_w": 0.0,
            "start_s": 0.0,
            "end_s": 0.0,
            "weight": 0.0,
            "reason": entry.reason,
        }
        for entry in s.left_out
    ]
    for row, fields in enumerate(rows):
        fields["plan_id"] = plan.plan_id
        yield Point("plan_job", {"site": s.site.name, "row": f"{row:06d}"}, fields, s.taken_s * 1000)


def _budget_points(plan: Plan) -> Iterator[Point]:
    """Yield what is used and left of each tenant's budget."""
    s = plan.snapshot
    for budget in s.period_budgets:
        shares = {"used": budget.used, "held": budget.held, "left": budget.left}
        fields: dict[str, float | str] = {"text": budget.text or budget.name, "tenant": budget.tenant}
        fields |= {f"{name}_percent": 100.0 * amount / budget.limit for name, amount in shares.items()}
        yield Point("plan_budget", {"site": s.site.name, "budget": budget.name}, fields, s.taken_s * 1000)


def plan_points(plan: Plan) -> Iterator[Point]:
    """Yield every point of a plan as powerhall.store.schema names them."""
    s = plan.snapshot
    fields: dict[str, float | str] = {
        name: float(value) for name, value in msgspec.structs.asdict(figures(plan)).items() if math.isfinite(value)
    }
    fields |= {"plan_id": plan.plan_id, "status": plan.status, "value": float(plan.value), "bound": float(plan.bound)}
    fields |= {"gap": plan.gap, "verified": 1.0, "solve_s": plan.solve_s}
    if s.timezone:
        fields["timezone"] = s.timezone
    yield Point("plan", {"site": s.site.name}, fields, s.taken_s * 1000)
    yield from _zone_points(plan)
    yield from _plant_points(plan)
    yield from _storage_points(plan)
    yield from _job_points(plan)
    yield from _budget_points(plan)


def publish(plan: Plan, store: Store | None, out: Path | None) -> None:
    """Verify the plan as readers will decode it, then write document, points and ladder, then plan.json in one step."""
    body, broken = check_encoded(plan, verify_plan)
    if broken:
        raise PowerhallError(f"plan {plan.plan_id[:12]} is not published: {broken[0]}")
    if store is not None:
        lines: list[bytes] = []
        size = 0
        for point in plan_points(plan):
            lines.append(encode(point))
            size += len(lines[-1])
            if size > _CHUNK_BYTES:
                store.write(b"".join(lines))
                lines, size = [], 0
        store.write(b"".join(lines))
        store.put_document("plan", plan.snapshot.site.name, plan.snapshot.taken_s, body)
    # The emergency ladder of the plan lies beside it: the rungs that `shed` would take.
    steps = msgspec.json.encode(ladder(plan, float(plan.snapshot.taken_s)))
    if store is not None:
        store.put_document("ladder", plan.snapshot.site.name, plan.snapshot.taken_s, steps)
    if out is not None:
        replace_files({out.with_name(f"{out.stem}-ladder{out.suffix}"): steps, out: body})
        note_newest(plan, out)


def site_file(out: Path, site: str) -> Path:
    """Return the file of one site's plan beside the plan of all: plan.json -> plan.phx.json."""
    return out.with_name(f"{out.stem}.{site}{out.suffix}")


def multi_site_key(sites: Iterable[str]) -> str:
    """Return the key under which the store keeps the plan of several sites."""
    return "+".join(sorted(sites))


def publish_multi_site(plan: MultiSitePlan, store: Store | None, out: Path | None) -> None:
    """Check the plan of several sites as it will be read, then write every site's own plan, and the whole last."""
    body, broken = check_encoded(plan, verify_multi_site)
    if broken:
        raise PowerhallError(f"plan {plan.plan_id[:12]} is not published: {broken[0]}")
    for part in plan.plans:
        publish(part, store, None if out is None else site_file(out, part.snapshot.site.name))
    if store is not None:
        key = multi_site_key(part.snapshot.site.name for part in plan.plans)
        store.put_document("fleet", key, plan.plans[0].snapshot.taken_s, body)
    if out is not None:
        write_multi_site_plan(plan, out)


def publish_plans(plan: Plan | MultiSitePlan, store: Store | None, out: Path | None) -> None:
    """Check and write a plan of one site or of several."""
    if isinstance(plan, MultiSitePlan):
        publish_multi_site(plan, store, out)
    else:
        publish(plan, store, out)
