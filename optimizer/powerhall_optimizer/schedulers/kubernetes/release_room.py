"""The power that jobs may hold while nobody plans: known from the last plan, and kept in the leader lease.

A zone's room is what its jobs may hold in the plan, at the lowest of the rest of its budget, so that no fall that was
known is met by jobs that nobody stops. After the plan's end it is the lowest of the whole plan.
"""

from itertools import accumulate

import msgspec

from powerhall.hostlist import compress, expand
from powerhall.plan.plan import Plan, ZonePlan
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex, ZoneKind
from powerhall.site.topology import NodeType, Rack
from powerhall_optimizer.schedulers.allowed import allowed_units

__all__ = ["ReleaseRoom", "ZoneRoom", "is_foreign", "read_room", "room_of", "worst_gpu_w"]


class ZoneRoom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Room in a zone: from each time in s on (ascending), the watts that its managed jobs may hold.

    A GPU of `nodes` (host list) is charged `gpu_w`, the worst that one of them draws, and a node has at most
    `node_gpus`. `others_gpus` are those of pods that are not managed, which the room is without already.
    """

    nodes: str
    gpu_w: float
    node_gpus: int
    others_gpus: int
    steps: tuple[tuple[int, int], ...]

    def watts(self, now_s: float) -> int:
        """Return the room now, in W."""
        return next((watts for from_s, watts in reversed(self.steps) if from_s <= now_s), self.steps[0][1])


class ReleaseRoom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Room by zone: the site and the halls that have a budget, and others that their nodes could exceed."""

    zones: dict[str, ZoneRoom]


def is_foreign(job_id: str) -> bool:
    """Return whether a queue's id is of pods that are not managed: KIND:NAMESPACE/NAME."""
    return ":" in job_id.partition("/")[0]


def room_of(plan: Plan) -> ReleaseRoom:
    """Return the room of a plan."""
    index, zones = SiteIndex.of(plan.snapshot.site), dict[str, ZoneRoom]()
    for zone in plan.zones:
        if zone.budget_w and zone.zone in index.kinds:
            room = _zone_room(plan, zone, index.racks_under(zone.zone))
            if index.kinds[zone.zone] in (ZoneKind.SITE, ZoneKind.HALL) or _can_be_exceeded(index, zone, room):
                zones[zone.zone] = room
    return ReleaseRoom(zones)


def _can_be_exceeded(index: SiteIndex, zone: ZonePlan, room: ZoneRoom) -> bool:
    """Return whether all nodes of a zone together may draw more than its room: most racks have enough for theirs."""
    gpus = sum(index.rack_gpus(rack) for rack in index.racks_under(zone.zone))
    return min(watts for _, watts in room.steps) < gpus * room.gpu_w


def read_room(text: str) -> ReleaseRoom:
    """Read a room as the lease has it; Rejected where it is none."""
    source = "room in the leader lease"
    room = decode_json(text.encode(), ReleaseRoom, source)
    for name, zone in room.zones.items():
        expand(zone.nodes)
        if not zone.steps or zone.gpu_w <= 0:
            raise Rejected.field(source, name, zone.gpu_w, "must have steps, and watts per GPU above 0")
    return room


def _zone_room(plan: Plan, zone: ZonePlan, racks: tuple[Rack, ...]) -> ZoneRoom:
    snapshot = plan.snapshot
    nodes = {node for rack in racks for node in rack.nodes}
    kinds = [snapshot.site.node_types[name] for name in {rack.node_type for rack in racks}]
    others = sum(
        held.gpus * len(nodes.intersection(expand(held.nodes))) for held in snapshot.held if is_foreign(held.job_id)
    )
    return ZoneRoom(
        compress(sorted(nodes)),
        max(map(worst_gpu_w, kinds)),
        max(kind.gpus for kind in kinds),
        others,
        _steps(plan, zone, nodes),
    )


def worst_gpu_w(kind: NodeType) -> float:
    """Return the most that a GPU of a node type draws in W, its share of the node included."""
    return max(kind.max_power_w / kind.gpus, *(mode.gpu_power_w for mode in kind.modes))


def _steps(plan: Plan, zone: ZonePlan, nodes: set[str]) -> tuple[tuple[int, int], ...]:
    snapshot, kinds = plan.snapshot, SiteIndex.of(plan.snapshot.site).kinds
    is_inside = kinds[zone.zone] not in (ZoneKind.SITE, ZoneKind.HALL)
    margin_w = snapshot.margin_w.get(zone.zone, 0.0)
    room: list[int] = []
    for slot, (watts, used) in enumerate(allowed_units(plan, zone, 1.0)):
        jobs_w = _used_w(plan, nodes, slot) - used if is_inside else 0.0
        stored_w = sum(max(0, store.power_w[slot]) for store in plan.storages)  # only while somebody plans
        room.append(max(0, int(watts + jobs_w - margin_w - stored_w)))
    from_here = list(accumulate(reversed(room), min))[::-1]
    steps: list[tuple[int, int]] = []
    for slot, lowest in enumerate(from_here):
        if not steps or steps[-1][1] != lowest:
            steps.append((snapshot.start_s + slot * snapshot.slot_s, lowest))
    end_s = snapshot.start_s + snapshot.slots * snapshot.slot_s
    return (*steps, (end_s, min(room)))


def _used_w(plan: Plan, nodes: set[str], slot: int) -> float:
    """Return the power of the plan's jobs on some nodes in a slot, in W."""
    begin_s = plan.snapshot.start_s + slot * plan.snapshot.slot_s
    return sum(
        place.gpus_per_node * len(nodes.intersection(expand(place.nodes))) * job.gpu_power_w
        for job in plan.assignments
        if job.start_s < begin_s + plan.snapshot.slot_s and job.end_s > begin_s
        for place in job.placements
    )
