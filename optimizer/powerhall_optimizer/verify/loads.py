"""Loads of a plan: power of every zone, heat and facility power of every hall per slot, by the true curves.

The planner counts the same in `powerhall_optimizer.physics.plan_loads`. This code is the checker's own on purpose: it
shares only the physics of powerhall core (curves of losses and plants) with the planner, and a test compares the two on
random plans. Here one row of a matrix is one rack, and every zone is a set of rows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.physics.cooling import HallLoad, hall_load
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Assignment, Plan, Snapshot, StoragePlan, gpu_power_w
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, NodeType

__all__ = [
    "HallLoads",
    "Loads",
    "gpus_of",
    "held_by_node",
    "idle_rack_w",
    "jobs_w",
    "loads_of",
    "outdoor_air",
    "plan_loads",
    "power_before_w",
    "slot_span",
    "zone_budgets",
]

Floats = npt.NDArray[np.float64]
_MILD = Weather(20.0, 15.0)
"""Outdoor air where the snapshot has none; then no plant depends on it."""


@dataclass(frozen=True, slots=True)
class HallLoads:
    """A hall per slot in W: power at the meter, and per medium its heat, the plants' capacity and storage.

    `stored_w` is the heat that storage takes; it is already off `heat_w`, and negative where storage adds heat.
    """

    facility_w: Floats
    heat_w: dict[str, Floats]
    capacity_w: dict[str, Floats]
    stored_w: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Loads:
    """Power per zone and slot in W: of IT, but at the meter for the site; and every hall's heat."""

    zone_w: dict[str, Floats]
    halls: dict[str, HallLoads]


def outdoor_air(snapshot: Snapshot) -> list[Weather]:
    """Return the outdoor air of every slot."""
    pairs = zip(snapshot.dry_bulb_c, snapshot.wet_bulb_c, strict=True)
    return [Weather(dry_c, wet_c) for dry_c, wet_c in pairs] or [_MILD] * snapshot.slots


def zone_budgets(snapshot: Snapshot) -> dict[str, Floats]:
    """Return the limit in W per slot of every zone that has one: the constant one or the budget's, the lower."""
    s = snapshot
    found = {
        zone: np.full(s.slots, watts) for zone, watts in SiteIndex.of(s.site).limits_w.items() if watts is not None
    }
    for zone, series in s.site.budgets.items():
        lowest_w = np.array(series.slots(s.start_s, s.slot_s, s.slots, "min"))
        found[zone] = np.minimum(found.get(zone, np.inf), lowest_w)
    return found


def slot_span(snapshot: Snapshot, entry: Assignment) -> tuple[int, int]:
    """Return the slots within the horizon that the run touches: the first, and the one after the last."""
    first = (entry.start_s - snapshot.start_s) // snapshot.slot_s
    after = (entry.end_s - snapshot.start_s + snapshot.slot_s - 1) // snapshot.slot_s
    return max(0, min(first, snapshot.slots)), max(0, min(after, snapshot.slots))


def plan_loads(plan: Plan) -> Loads:
    """Return the loads of the plan's assignments and storage in every slot."""
    return loads_of(plan.snapshot, plan.assignments, plan.storages)


def loads_of(s: Snapshot, assignments: Sequence[Assignment], storages: Sequence[StoragePlan] = ()) -> Loads:
    """Return the loads of assignments and storage in every slot of the snapshot's horizon."""
    racks = list(s.site.racks())
    rack_w = idle_rack_w(s)[:, None] + jobs_w(s, assignments)
    row_of = {rack.zone: row for row, rack in enumerate(racks)}
    index = SiteIndex.of(s.site)
    members = {feed: [row_of[rack.zone] for rack in index.racks_under(feed)] for feed in index.feeds}
    for hall in s.site.halls:
        for line in hall.rows:
            members[line.zone] = [row_of[rack.zone] for rack in line.racks]
        members[hall.zone] = [row_of[rack.zone] for rack in hall.racks()]
    members |= {zone: [row] for zone, row in row_of.items()}
    zone_w = {zone: rack_w[rows].sum(axis=0) for zone, rows in members.items()}
    share = np.array([s.site.node_types[rack.node_type].liquid_fraction for rack in racks])
    powers_w = {e.name: np.array(e.power_w, float) for e in storages if len(e.power_w) == s.slots}
    halls: dict[str, HallLoads] = {}
    for hall in s.site.halls:
        rows = members[hall.zone]
        liquid_w = share[rows] @ rack_w[rows]
        halls[hall.zone] = _hall(s, hall, liquid_w, zone_w[hall.zone] - liquid_w, _cooling_w(s, powers_w, hall.zone))
    zone_w[s.site.name] = sum((hall.facility_w for hall in halls.values()), np.zeros(s.slots))
    for storage in s.site.storages:
        if storage.kind == "battery":
            for zone in (s.site.name, *index.feeds_above(storage.zone)):
                zone_w[zone] = zone_w[zone] - powers_w.get(storage.name, 0.0)
    return Loads(zone_w, halls)


def held_by_node(s: Snapshot) -> dict[str, list[tuple[int, float]]]:
    """Return what is held on each node: GPUs and the power of each in W."""
    found: dict[str, list[tuple[int, float]]] = {}
    for entry in s.held:
        for node in expand(entry.nodes):
            found.setdefault(node, []).append((entry.gpus, entry.gpu_power_w))
    return found


def gpus_of(job: Job, nodes: Collection[str]) -> int:
    """Return a running job's GPUs on some nodes: as the job says, else evenly spread with the first ones fuller."""
    own = expand(job.nodes) if job.nodes else ()
    counts = job.gpus_on_nodes or tuple((job.gpus + len(own) - 1 - i) // len(own) for i in range(len(own)))
    return sum(count for node, count in zip(own, counts, strict=True) if node in nodes)


def idle_rack_w(s: Snapshot) -> Floats:
    """IT power of every rack without jobs: idle nodes with what is held on them, nothing for nodes that are off.

    Nodes without telemetry count at their maximum.
    """
    off, stale, held = set(s.off_nodes), set(s.stale_nodes), held_by_node(s)

    def node_w(node: str, kind: NodeType) -> float:
        if node in off:
            return 0.0
        if node in stale:
            return kind.max_power_w
        return kind.idle_power_w + sum(n * max(0.0, w - kind.idle_gpu_power_w) for n, w in held.get(node, ()))

    kinds = s.site.node_types
    return np.array([sum(node_w(node, kinds[rack.node_type]) for node in rack.nodes) for rack in s.site.racks()])


def jobs_w(s: Snapshot, assignments: Sequence[Assignment]) -> Floats:
    """Return the power that jobs add to every rack per slot in W; nodes that are off or silent count 0."""
    row_of = {rack.zone: row for row, rack in enumerate(s.site.racks())}
    uncounted = {*s.off_nodes, *s.stale_nodes}
    added_w = np.zeros((len(row_of), s.slots))
    for entry in assignments:
        kind = s.site.node_types.get(entry.node_type)
        if kind is None:
            continue
        above_idle_w = max(0.0, entry.gpu_power_w - kind.idle_gpu_power_w)
        first, after = slot_span(s, entry)
        for placement in entry.placements:
            if placement.rack in row_of:
                nodes = sum(node not in uncounted for node in expand(placement.nodes))
                added_w[row_of[placement.rack], first:after] += nodes * placement.gpus_per_node * above_idle_w
    return added_w


def _cooling_w(s: Snapshot, powers_w: Mapping[str, Floats], hall: str) -> dict[str, Floats]:
    """Return the heat per medium that a hall's cooling storage takes off."""
    total_w: dict[str, Floats] = {}
    for storage in s.site.storages:
        if storage.kind != "battery" and storage.zone == hall and storage.name in powers_w:
            total_w[storage.medium] = total_w.get(storage.medium, 0.0) + powers_w[storage.name]
    return total_w


def _hall(s: Snapshot, hall: Hall, liquid_w: Floats, air_w: Floats, stored_w: Mapping[str, Floats]) -> HallLoads:
    def at(slot: int) -> HallLoad:
        stored = {medium: float(watts[slot]) for medium, watts in stored_w.items()}
        return hall_load(hall, float(liquid_w[slot]), float(air_w[slot]), air[slot], stored)

    air = outdoor_air(s)
    slots = [at(slot) for slot in range(s.slots)]
    media = slots[0].heat_w
    return HallLoads(
        np.array([load.facility_power_w for load in slots]),
        {medium: np.array([load.heat_w[medium] for load in slots]) for medium in media},
        {medium: np.array([load.capacity_w[medium] for load in slots]) for medium in media},
        {medium: stored_w.get(medium, np.zeros(s.slots)) for medium in media},
    )


def power_before_w(s: Snapshot) -> float:
    """Return the power at the meter in W just before the plan begins: running jobs in the modes that they run in."""
    places = [(hall.zone, s.site.node_types[rack.node_type]) for hall in s.site.halls for rack in hall.racks()]
    loads = [(*place, float(idle_w)) for place, idle_w in zip(places, idle_rack_w(s), strict=True)]
    loads += [load for job in s.jobs if job.site in (None, s.site.name) for load in _running(s, job)]
    total_w = 0.0
    for hall in s.site.halls:
        here = [(kind.liquid_fraction, watts) for zone, kind, watts in loads if zone == hall.zone]
        liquid_w = sum(share * watts for share, watts in here)
        air_w = sum((1 - share) * watts for share, watts in here)
        total_w += hall_load(hall, liquid_w, air_w, outdoor_air(s)[0]).facility_power_w
    return total_w


def _running(s: Snapshot, job: Job) -> list[tuple[str, NodeType, float]]:
    """Return hall, node type and power above idle in W of a running job; nothing where its type or mode is unknown."""
    if job.state != "running" or job.hall is None:
        return []
    nodes = expand(job.nodes) if job.nodes else ()
    racks = [rack for hall in s.site.halls if hall.zone == job.hall for rack in hall.racks()]
    named = job.node_type or next((r.node_type for r in racks if not nodes or nodes[0] in r.nodes), "")
    kind = s.site.node_types.get(named)
    mode = next((mode for mode in kind.modes if mode.name == job.mode), None) if kind else None
    if kind is None or mode is None:
        return []
    fixed = {*s.off_nodes, *s.stale_nodes}
    gpus = gpus_of(job, set(nodes) - fixed) if nodes else job.gpus
    above_idle_w = gpu_power_w(kind, mode, s.site.job_classes.get(job.job_class)) - kind.idle_gpu_power_w
    return [(job.hall, kind, gpus * max(0.0, above_idle_w))]
