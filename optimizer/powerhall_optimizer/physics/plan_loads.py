"""Loads of a plan: IT power of every zone, heat and facility power per slot, from assignments and storage alone.

Independent of the problem builder: true convex losses and cooling curves, no linearisation, no solver. The checker has
code of its own for the same loads (`powerhall_optimizer.verify.loads`); a test compares the two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.jobs.model import node_gpus
from powerhall.physics.cooling import HallLoad, hall_load
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Assignment, Plan, Snapshot, StoragePlan, gpu_power_w
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, NodeType, Rack

__all__ = [
    "Loads",
    "Overview",
    "budget_w",
    "held_on_nodes",
    "loads_of",
    "plan_loads",
    "power_now_w",
    "slot_span",
    "weather_of",
    "zone_budgets",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Overview:
    """A hall over the horizon: facility power, cooling power and losses, heat and capacity per medium, all in W."""

    facility_w: Floats
    cooling_w: Floats
    loss_w: Floats
    heat_w: dict[str, Floats]
    capacity_w: dict[str, Floats]
    stored_w: dict[str, Floats]
    """Heat that cooling storage takes off the plants, already subtracted from `heat_w`; negative where it adds heat."""


@dataclass(frozen=True, slots=True)
class Loads:
    """IT power per zone and slot (the site's entry is facility power), and every hall's overview."""

    zone_w: dict[str, Floats]
    halls: dict[str, Overview]


def zone_budgets(snapshot: Snapshot) -> dict[str, Floats]:
    """Return the budget per slot in W of every zone that has one, margins not taken off."""
    found: dict[str, Floats] = {}
    for zone, limit in SiteIndex.of(snapshot.site).limits_w.items():
        series = snapshot.site.budgets.get(zone)
        if limit is None and series is None:
            continue
        values = np.full(snapshot.slots, np.inf if limit is None else limit)
        if series is not None:
            step = series.slots(snapshot.start_s, snapshot.slot_s, snapshot.slots, "min")
            values = np.minimum(values, step)
        found[zone] = values
    return found


def budget_w(snapshot: Snapshot, zone: str) -> Floats | None:
    """Return one zone's budget per slot in W; None where it has none."""
    return zone_budgets(snapshot).get(zone)


def slot_span(snapshot: Snapshot, assignment: Assignment) -> tuple[int, int]:
    """Return the first slot and the one after the last in which the job runs, cut to the horizon."""
    first = (assignment.start_s - snapshot.start_s) // snapshot.slot_s
    last = -(-(assignment.end_s - snapshot.start_s) // snapshot.slot_s)
    return min(max(first, 0), snapshot.slots), min(max(last, 0), snapshot.slots)


def held_on_nodes(snapshot: Snapshot) -> tuple[dict[str, int], dict[str, float]]:
    """Return the GPUs that are held on each node, and the power in W that they add to the idle node."""
    rack_of = SiteIndex.of(snapshot.site).rack_of
    gpus: dict[str, int] = {}
    added_w: dict[str, float] = {}
    for held in snapshot.held:
        for node in expand(held.nodes):
            if node not in rack_of:
                continue
            idle_w = snapshot.site.node_types[rack_of[node].node_type].idle_gpu_power_w
            gpus[node] = gpus.get(node, 0) + held.gpus
            added_w[node] = added_w.get(node, 0.0) + held.gpus * max(0.0, held.gpu_power_w - idle_w)
    return gpus, added_w


def _rack_w(snapshot: Snapshot, assignments: Sequence[Assignment]) -> dict[str, Floats]:
    """Return the IT power of every rack per slot."""
    off, stale = set(snapshot.off_nodes), set(snapshot.stale_nodes)
    held_w = held_on_nodes(snapshot)[1]
    change: dict[str, Floats] = {}
    for rack in snapshot.site.racks():
        kind = snapshot.site.node_types[rack.node_type]
        steps = np.zeros(snapshot.slots + 1)
        for node in rack.nodes:
            if node not in off:
                steps[0] += kind.max_power_w if node in stale else kind.idle_power_w + held_w.get(node, 0.0)
        change[rack.zone] = steps
    uncounted = off | stale
    for entry in assignments:
        if entry.node_type not in snapshot.site.node_types:
            continue
        kind = snapshot.site.node_types[entry.node_type]
        added_w = max(0.0, entry.gpu_power_w - kind.idle_power_w / kind.gpus)
        first, last = slot_span(snapshot, entry)
        for placement in entry.placements:
            if placement.rack not in change:
                continue
            nodes = expand(placement.nodes)
            counted = sum(node not in uncounted for node in nodes) if uncounted else len(nodes)
            change[placement.rack][first] += counted * placement.gpus_per_node * added_w
            change[placement.rack][last] -= counted * placement.gpus_per_node * added_w
    return {zone: np.cumsum(steps)[:-1] for zone, steps in change.items()}


def weather_of(snapshot: Snapshot) -> list[Weather]:
    """Return the weather of every slot; where none is known no plant depends on it."""
    if not snapshot.dry_bulb_c:
        return [Weather(20.0, 15.0)] * snapshot.slots
    return [Weather(d, w) for d, w in zip(snapshot.dry_bulb_c, snapshot.wet_bulb_c, strict=True)]


def _overview(
    hall: Hall, liquid_w: Floats, air_w: Floats, weather: Sequence[Weather], stored_w: dict[str, Floats]
) -> Overview:
    known: dict[tuple[object, ...], HallLoad] = {}
    loads: list[HallLoad] = []
    names = list(stored_w)
    stored = list(zip(*(stored_w[name].tolist() for name in names), strict=True)) or [()] * len(weather)
    for liquid, air, moment, parts in zip(liquid_w.tolist(), air_w.tolist(), weather, stored, strict=True):
        key = liquid, air, moment, parts
        if key not in known:
            known[key] = hall_load(hall, liquid, air, moment, dict(zip(names, parts, strict=True)))
        loads.append(known[key])
    media = loads[0].heat_w
    return Overview(
        np.array([load.facility_power_w for load in loads]),
        np.array([load.cooling_power_w for load in loads]),
        np.array([load.loss_power_w for load in loads]),
        {medium: np.array([load.heat_w[medium] for load in loads]) for medium in media},
        {medium: np.array([load.capacity_w[medium] for load in loads]) for medium in media},
        {medium: stored_w.get(medium, np.zeros(len(loads))) for medium in media},
    )


def _sum(rack_w: dict[str, Floats], racks: Sequence[Rack], slots: int) -> Floats:
    total = np.zeros(slots)
    for rack in racks:
        total += rack_w[rack.zone]
    return total


def _stored(snapshot: Snapshot, storages: Sequence[StoragePlan], hall: str) -> dict[str, Floats]:
    """Return the power of a hall's cooling storage per medium."""
    powers = {entry.name: entry.power_w for entry in storages if len(entry.power_w) == snapshot.slots}
    found: dict[str, Floats] = {}
    for storage in snapshot.site.storages:
        if storage.kind != "battery" and storage.zone == hall and storage.name in powers:
            before = found.get(storage.medium, np.zeros(snapshot.slots))
            found[storage.medium] = before + np.array(powers[storage.name], float)
    return found


def _take_off_batteries(snapshot: Snapshot, storages: Sequence[StoragePlan], zone_w: dict[str, Floats]) -> None:
    """A battery takes its power off its feed, the feeds above and the site; charging adds to them."""
    site = snapshot.site
    powers = {entry.name: entry.power_w for entry in storages if len(entry.power_w) == snapshot.slots}
    for storage in site.storages:
        if storage.kind == "battery" and storage.name in powers:
            for zone in (site.name, *SiteIndex.of(site).feeds_above(storage.zone)):
                zone_w[zone] = zone_w[zone] - np.array(powers[storage.name], float)


def plan_loads(plan: Plan) -> Loads:
    """Return the loads of a plan's assignments and storage in every slot of its horizon."""
    return loads_of(plan.snapshot, plan.assignments, plan.storages)


def loads_of(s: Snapshot, assignments: Sequence[Assignment], storages: Sequence[StoragePlan] = ()) -> Loads:
    """Return the loads of assignments and storage in every slot of a snapshot's horizon."""
    rack_w = _rack_w(s, assignments)
    zone_w = dict(rack_w)
    halls: dict[str, Overview] = {}
    weather = weather_of(s)
    for hall in s.site.halls:
        liquid, air = np.zeros(s.slots), np.zeros(s.slots)
        for row in hall.rows:
            zone_w[row.zone] = _sum(rack_w, row.racks, s.slots)
        for rack in hall.racks():
            share = s.site.node_types[rack.node_type].liquid_fraction
            liquid += share * rack_w[rack.zone]
            air += (1 - share) * rack_w[rack.zone]
        zone_w[hall.zone] = liquid + air
        halls[hall.zone] = _overview(hall, liquid, air, weather, _stored(s, storages, hall.zone))
    for feed in s.site.feeds:
        zone_w[feed.zone] = _sum(rack_w, SiteIndex.of(s.site).racks_under(feed.zone), s.slots)
    zone_w[s.site.name] = sum((overview.facility_w for overview in halls.values()), np.zeros(s.slots))
    _take_off_batteries(s, storages, zone_w)
    return Loads(zone_w, halls)


def power_now_w(snapshot: Snapshot) -> float:
    """Return the site's power at the meter just before the plan begins: running jobs in the modes that they run in."""
    rack_w = _rack_w(snapshot, ())
    weather = weather_of(snapshot)[0]
    running = [job for job in snapshot.jobs if job.state == "running" and job.site in (None, snapshot.site.name)]
    total = 0.0
    for hall in snapshot.site.halls:
        loads = [(snapshot.site.node_types[rack.node_type], float(rack_w[rack.zone][0])) for rack in hall.racks()]
        loads += [load for job in running if job.hall == hall.zone for load in _running_w(snapshot, hall, job)]
        liquid = sum(kind.liquid_fraction * load_w for kind, load_w in loads)
        air = sum((1 - kind.liquid_fraction) * load_w for kind, load_w in loads)
        total += hall_load(hall, liquid, air, weather).facility_power_w
    return total


def _running_w(snapshot: Snapshot, hall: Hall, job: Job) -> Iterator[tuple[NodeType, float]]:
    """Yield the node type of a running job and the power in W that it adds to its idle nodes; nothing if unknown."""
    nodes = expand(job.nodes) if job.nodes else ()
    held = SiteIndex.of(snapshot.site).type_in_hall(hall.zone, nodes[0] if nodes else None)
    kind = snapshot.site.node_types.get(job.node_type or held or "")
    mode = None if kind is None else kind.find_mode(job.mode)
    if kind is None or mode is None:
        return
    uncounted = {*snapshot.off_nodes, *snapshot.stale_nodes}
    gpus = job.gpus
    if nodes and uncounted:
        gpus = sum(count for node, count in node_gpus(job).items() if node not in uncounted)
    power_w = gpu_power_w(kind, mode, snapshot.site.job_classes.get(job.job_class))
    yield kind, gpus * max(0.0, power_w - kind.idle_power_w / kind.gpus)
