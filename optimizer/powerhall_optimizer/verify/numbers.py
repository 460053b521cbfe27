"""Ranges of a plan's numbers: what is outside could overflow a sum, so nothing else is checked then."""

from collections.abc import Iterable, Iterator
from itertools import chain

from powerhall.hostlist import expand
from powerhall.plan.plan import Held, Plan
from powerhall.site.index import SiteIndex
from powerhall_optimizer.verify.gpu_shares import share

__all__ = ["wrong_numbers"]

MOST_GPU_W = 1e6
"""Highest draw of one GPU that is believed, in W."""
MOST_W = 1e13
"""Highest power of a zone, store or margin that is believed, in W."""
_NO_LIMIT_W = 1e15
"""What a plan shows as the budget of a zone without a limit while no event limits it."""
_MOST_C = 200.0
_MOST_PRICE = 1e9
_MOST_S = 1e18
_MOST_GPUS = 1 << 30


def wrong_numbers(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, where, text) of every number out of range."""
    for entry in plan.assignments:
        if not 0 <= entry.gpu_power_w <= MOST_GPU_W:
            yield "number", entry.job_id, f"gpu_power_w is {entry.gpu_power_w:g}; must be from 0 to {MOST_GPU_W:g} W"
        least = 0 if entry.beside else 1
        if not all(least <= p.gpus_per_node <= 1 << 16 for p in entry.placements):
            yield "number", entry.job_id, f"gpus_per_node must be from {least} to 65536"
    for zone in plan.zones:
        powers = chain(zone.planned_w, zone.heat_w, zone.cooling_capacity_w)
        if _beyond(powers, MOST_W) or _beyond(zone.budget_w, _NO_LIMIT_W):
            yield "number", zone.zone, f"a power is beyond {MOST_W:g} W"
    for plant in plan.plants:
        if _beyond(chain(plant.units, plant.heat_w, plant.power_w, plant.water_l), MOST_W):
            yield "number", f"{plant.hall}/{plant.plant}", f"a number is beyond {MOST_W:g}"
    for store in plan.storages:
        if _beyond(store.power_w, MOST_W) or _beyond(store.stored_j, 1e18):
            yield "number", store.name, f"a power is beyond {MOST_W:g} W or a content beyond 1e18 J"
    yield from _node_lists(plan)
    yield from _snapshot(plan)
    yield from _jobs(plan)
    yield from _site(plan)


def _node_lists(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield the jobs whose list of nodes cannot be read."""
    lists = [(entry.job_id, place.nodes) for entry in plan.assignments for place in entry.placements]
    lists += [(job.job_id, job.nodes) for job in plan.snapshot.jobs if job.nodes is not None]
    for job_id, nodes in lists:
        try:
            known = bool(expand(nodes))
        except ValueError:
            known = False
        if not known:
            yield "nodes", job_id, f"{nodes[:80]!r} is no list of nodes"


def _jobs(plan: Plan) -> Iterator[tuple[str, str, str]]:
    for job in plan.snapshot.jobs:
        times = [job.submit_s, job.earliest_s or 0.0, job.deadline_s or 0.0, job.start_s or 0.0]
        least = 0 if job.state == "running" and job.gpu_share is not None else 1
        fine = (
            least <= job.gpus <= (_MOST_GPUS if job.gpu_share is None else 1)
            and 0 < job.duration_s <= _MOST_S
            and 0 < job.weight <= _MOST_PRICE
        )
        if not fine or not 0 <= job.checkpoint_cost_s <= _MOST_S or _beyond(times, _MOST_S):
            yield "number", job.job_id, "GPUs, duration, weight, checkpoint cost or a time is out of range"
        try:
            share(job)
        except ValueError:
            yield "number", job.job_id, f"gpu_share is {job.gpu_share!r}; must be above 0 and at most 1"
        nodes = len(expand(job.nodes)) if job.nodes and job.gpus_on_nodes else 0
        if len(job.gpus_on_nodes) != nodes or not all(0 <= gpus <= 1 << 16 for gpus in job.gpus_on_nodes):
            yield "number", job.job_id, f"gpus_on_nodes must have one number for each of {nodes} nodes"


def _site(plan: Plan) -> Iterator[tuple[str, str, str]]:
    site = plan.snapshot.site
    for kind in site.node_types.values():
        modes = all(0 <= mode.gpu_power_w <= MOST_GPU_W and 0 < mode.speed <= 1e3 for mode in kind.modes)
        powers = 0 <= kind.idle_power_w <= MOST_W and 0 <= kind.max_power_w <= MOST_W
        parts = 1 <= kind.gpu_parts <= 1 << 16
        if not (modes and powers and parts and 1 <= kind.gpus <= 1 << 16 and 0 <= kind.liquid_fraction <= 1):
            yield (
                "number",
                kind.name,
                "GPUs, their parts, a power, a speed or the liquid fraction of the node type is out of range",
            )
    for name, entry in site.job_classes.items():
        if not all(0 < value <= 1e3 for value in (*entry.draw.values(), *entry.speed.values())):
            yield "number", name, "a draw or a speed of the job class is out of range"
    for hall in site.halls:
        losses = hall.losses.fixed_w, hall.losses.linear, hall.losses.quadratic_per_w
        plants = [(p.capacity_w, p.fan_power_w, p.pump_power_w) for p in hall.plants]
        if not all(0 <= value <= MOST_W for value in (*losses, *chain(*plants))) or any(
            not 1e-3 <= plant.cop <= 1e4 or not 1 <= plant.units <= 1 << 16 for plant in hall.plants
        ):
            yield "number", hall.zone, "a loss, capacity, power, cop or number of units is out of range"
    limits = [limit_w for limit_w in SiteIndex.of(site).limits_w.values() if limit_w is not None]
    if _beyond(limits, _NO_LIMIT_W):
        yield "number", site.name, f"a limit is beyond {_NO_LIMIT_W:g} W"


def _snapshot(plan: Plan) -> Iterator[tuple[str, str, str]]:
    s = plan.snapshot
    for name, values, most in (
        ("margin_w", s.margin_w.values(), MOST_W),
        ("stored_j", s.stored_j.values(), 1e18),
        ("dry_bulb_c", s.dry_bulb_c, _MOST_C),
        ("wet_bulb_c", s.wet_bulb_c, _MOST_C),
        ("price_per_mwh", s.price_per_mwh, _MOST_PRICE),
        ("carbon_g_per_kwh", s.carbon_g_per_kwh, _MOST_PRICE),
    ):
        if _beyond(values, most):
            yield "number", f"snapshot.{name}", f"must be within {most:g}"
    for held in s.held:
        yield from _held(held)
    if any(margin_w < 0 for margin_w in s.margin_w.values()):
        yield "number", "snapshot.margin_w", "must not be negative"
    for name, row in (("dry_bulb_c", s.dry_bulb_c), ("wet_bulb_c", s.wet_bulb_c), ("price_per_mwh", s.price_per_mwh),
                      ("carbon_g_per_kwh", s.carbon_g_per_kwh)):  # fmt: skip
        if len(row) not in (0, s.slots):
            yield "number", f"snapshot.{name}", f"has {len(row)} values; must have none or {s.slots}"


def _held(held: Held) -> Iterator[tuple[str, str, str]]:
    where = f"snapshot.held of {held.job_id}"
    if not (1 <= held.gpus <= 1 << 16 and 0 <= held.gpu_power_w <= MOST_GPU_W):
        yield "number", where, f"must be from 1 to 65536 GPUs of 0 to {MOST_GPU_W:g} W"
    try:
        expand(held.nodes)
    except ValueError as error:
        yield "number", where, f"nodes: {error}"


def _beyond(values: Iterable[float], most: float) -> bool:
    return not all(abs(value) <= most for value in values)
