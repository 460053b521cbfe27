"""A site's power limits as one hierarchical resource of Slurm (mode 3): layers of nodes with counts of power.

Facts of Slurm 26.05 that this keeps to: a job charges each of its nodes, a charge counts in every layer that holds the
node, and a job may name one resource of mode 3. Layers have different node sets that nest; every node of the root lies
in a leaf, and all leaves at one depth. Slurm ends on a file that breaks these rules or names a node that it does not
have. It holds a waiting job for good when no node can ever take its charge, so a cut never writes less than that.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from powerhall.plan.plan import Plan, ZonePlan
from powerhall.site.index import SiteIndex, ZoneKind
from powerhall_optimizer.schedulers.allowed import units
from powerhall_optimizer.schedulers.slurm.prepaid import above_idle_w, full_w, prepaid_nodes
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings

__all__ = ["Layer", "PowerTree", "node_charge", "power_tree"]

_FROM_ABOVE = (ZoneKind.SITE, ZoneKind.HALL, ZoneKind.ROW, ZoneKind.RACK, ZoneKind.FEED)


@dataclass(frozen=True, slots=True)
class Layer:
    """Nodes that share a limit, in units above their idle power; `zones` is none where it only evens the depth."""

    nodes: frozenset[str]
    count: int
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PowerTree:
    """Layers from the root down, one level after the other.

    `closed` take nothing new until `closed_until_s`: their budget has no room for one node's charge. `left` are limited
    zones that no such tree can hold.
    """

    layers: tuple[Layer, ...]
    closed: frozenset[str] = frozenset()
    closed_until_s: int = 0
    left: tuple[str, ...] = ()


def node_charge(gpus: int, gpu_power_w: float, idle_gpu_power_w: float, unit_w: float) -> int:
    """Return the units that a job charges each of its nodes: what its GPUs there draw above idle, rounded up."""
    return units(gpus * max(0.0, gpu_power_w - idle_gpu_power_w), unit_w)


class _Rooms:
    """Counts of zones now and by their constant limits, in units above idle."""

    def __init__(self, plan: Plan, settings: SlurmSettings, now_s: float) -> None:
        self._plan, self._unit_w = plan, settings.licence_w
        self._index, self._prepaid = SiteIndex.of(plan.snapshot.site), prepaid_nodes(settings, plan.snapshot.site)
        self._of = {zone.zone: zone for zone in plan.zones}
        first = int((now_s - plan.snapshot.start_s) // plan.snapshot.slot_s)
        last = int((now_s + settings.round_s - plan.snapshot.start_s) // plan.snapshot.slot_s)
        most = plan.snapshot.slots - 1
        self._first = min(max(0, first), most)
        self._slots = range(self._first, min(max(0, last), most) + 1)

    def most(self, zone: str) -> int:
        """Return the units that all nodes of a zone can draw at most."""
        kinds = [(self._index.rack_type(rack), len(rack.nodes)) for rack in self._index.racks_under(zone)]
        return sum(count * self.node_most(kind.name) for kind, count in kinds)

    def node_most(self, node_type: str) -> int:
        """Return the highest charge of a node of a type, counted from zero as at submission."""
        return units(full_w(self._plan.snapshot.site.node_types[node_type]), self._unit_w)

    def _count(self, zone: str, limit_w: float) -> int:
        idle_w = sum(len(r.nodes) * self._index.rack_type(r).idle_power_w for r in self._index.racks_under(zone))
        idle_w += above_idle_w(self._index.site, zone, self._prepaid)
        room = math.floor((limit_w - idle_w) / self._unit_w + 1e-9) if math.isfinite(limit_w) else self.most(zone)
        return min(max(0, room), self.most(zone))

    def constant(self, zone: str) -> int:
        """Return the count by the zone's constant limit."""
        limit_w = self._index.limits_w.get(zone)
        return self.most(zone) if limit_w is None else self._count(zone, limit_w)

    def at(self, zone: str, slot: int) -> int:
        """Return the count by the budget of a slot; that of the site is brought from the meter to IT power."""
        entry = self._of.get(zone)
        if entry is None or not entry.budget_w:
            return self.constant(zone)
        limit_w = float(entry.budget_w[slot])
        return self._count(zone, self._at_it(entry, slot) if self._index.kinds[zone] is ZoneKind.SITE else limit_w)

    def _at_it(self, entry: ZonePlan, slot: int) -> float:
        it_w = sum(self._of[hall].planned_w[slot] for hall in self._index.halls if hall in self._of)
        overhead = max(1.0, entry.planned_w[slot] / it_w) if it_w else 1.0
        return it_w + (entry.budget_w[slot] - entry.planned_w[slot]) / overhead

    def now(self, zone: str) -> int:
        """Return the lowest count from now until the next round."""
        return min(self.at(zone, slot) for slot in self._slots)

    def rises_s(self, zone: str, least: int) -> int:
        """Return when a zone's count is at least so high again, or when the plan ends."""
        snapshot = self._plan.snapshot
        slots = range(self._slots[-1] + 1, snapshot.slots)
        slot = next((slot for slot in slots if self.at(zone, slot) >= least), snapshot.slots)
        return snapshot.start_s + slot * snapshot.slot_s

    def is_limited(self, zone: str) -> bool:
        """Whether a zone has a limit."""
        entry = self._of.get(zone)
        return self._index.limits_w.get(zone) is not None or (entry is not None and bool(entry.budget_w))


def power_tree(
    plan: Plan, settings: SlurmSettings, known: Iterable[str], now_s: float, charges: Iterable[int] = ()
) -> PowerTree:
    """Return the tree of the site's limited zones for the nodes that Slurm knows; `charges` are those of waiting jobs.

    A count is never below the highest charge of one node, as far as the zone's constant limit allows it, or Slurm would
    hold what waits; where the budget is lower than that, the zone's nodes are closed instead.
    """
    index, rooms = SiteIndex.of(plan.snapshot.site), _Rooms(plan, settings, now_s)
    names, waiting = frozenset(known), max(charges, default=0)
    found: dict[frozenset[str], Layer] = {}
    left: list[str] = []
    closed: set[str] = set()
    until_s = 0
    zones = [zone for kind in _FROM_ABOVE for zone, its in index.kinds.items() if its is kind]
    for zone in zones:
        racks = index.racks_under(zone)
        nodes = frozenset(node for rack in racks for node in rack.nodes) & names
        is_root = zone == plan.snapshot.site.name
        if not nodes or not (is_root or rooms.is_limited(zone)):
            continue
        if any(not _nests(nodes, other) for other in found):
            left.append(zone)
            continue
        highest = max(waiting, *(rooms.node_most(rack.node_type) for rack in racks))
        count, least = rooms.now(zone), min(rooms.constant(zone), highest)
        if count < least:
            closed |= nodes
            until_s = max(until_s, rooms.rises_s(zone, least))
        layer, same = Layer(nodes, max(count, least), (zone,)), found.get(nodes)
        if same is not None:
            layer = replace(layer, count=min(layer.count, same.count), zones=(*same.zones, zone))
        found[nodes] = layer
    layers, lost = _uniform(found)
    return PowerTree(layers, frozenset(closed), until_s, (*left, *lost))


def _nests(one: frozenset[str], other: frozenset[str]) -> bool:
    return one <= other or other <= one or one.isdisjoint(other)


def _children(sets: Iterable[frozenset[str]]) -> dict[frozenset[str], list[frozenset[str]]]:
    """Return the children of each set, with one more child for what the others leave over; the root comes first."""
    ordered = sorted(sets, key=lambda nodes: (-len(nodes), min(nodes)))
    owner: dict[str, frozenset[str]] = {}
    children: dict[frozenset[str], list[frozenset[str]]] = {}
    for nodes in ordered:
        parent = owner.get(min(nodes))
        if parent is not None:
            children[parent].append(nodes)
        children[nodes] = []
        owner |= dict.fromkeys(nodes, nodes)
    for nodes in ordered:
        rest = nodes.difference(*children[nodes])
        if children[nodes] and rest:
            children[nodes].append(rest)
            children[rest] = []
    return children


def _uniform(found: Mapping[frozenset[str], Layer]) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """Return the layers with all leaves at one depth, and the zones that had to be left out for that.

    A leaf that is too high is split into halves with the count of the whole, which limit nothing; where it has too few
    nodes for that, the lowest level is left out.
    """
    kept = dict(found)
    lost: list[str] = []
    while kept:
        children = _children(kept)
        depth: dict[frozenset[str], int] = {}
        for nodes in children:  # parents come before their children, what is left over last
            depth.setdefault(nodes, 1)
            for child in children[nodes]:
                depth[child] = depth[nodes] + 1
        deepest = max(depth.values())
        leaves = [nodes for nodes in children if not children[nodes]]
        if all(len(nodes) >= 2 ** (deepest - depth[nodes]) for nodes in leaves):
            layers = [(depth[nodes], kept.get(nodes) or _unlimited(nodes, children, kept)) for nodes in children]
            for nodes in leaves:
                whole = kept.get(nodes) or _unlimited(nodes, children, kept)
                layers += _halves(whole, depth[nodes], deepest)
            layers.sort(key=lambda entry: (entry[0], min(entry[1].nodes)))
            return tuple(layer for _, layer in layers), tuple(lost)
        for nodes in [nodes for nodes in kept if depth[nodes] == deepest]:
            lost += kept.pop(nodes).zones
    return (), tuple(lost)


def _unlimited(
    nodes: frozenset[str],
    children: Mapping[frozenset[str], list[frozenset[str]]],
    kept: Mapping[frozenset[str], Layer],
) -> Layer:
    """Return a layer that limits nothing: with its parent's count."""
    parent = next(parent for parent, below in children.items() if nodes in below)
    return Layer(nodes, kept[parent].count)


def _halves(layer: Layer, depth: int, deepest: int) -> list[tuple[int, Layer]]:
    if depth == deepest:
        return []
    ordered = sorted(layer.nodes)
    middle = len(ordered) // 2
    parts = [Layer(frozenset(part), layer.count) for part in (ordered[:middle], ordered[middle:])]
    return [entry for part in parts for entry in ((depth + 1, part), *_halves(part, depth + 1, deepest))]
