"""Keeps pods where the plan counts them: in the hall and on the node type that it gave the job.

Nodes of one type in one hall, below the same limits, are a pool: wherever in it a job runs, every limit sees the same
power. Where labels of the nodes select no node outside the job's pool, its pods are confined to those labels, and
prefer the planned nodes; else to the planned nodes by name. A JobSet takes labels alone (its webhook lets only the
node selector of a template change): where none confine it, it is not started.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec

from powerhall.hostlist import compress
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.schedulers.kubernetes.gangs import PodGroup, edited_spec, gpu_groups, pod_groups
from powerhall_optimizer.schedulers.kubernetes.kubernetes_settings import KubernetesSettings
from powerhall_optimizer.schedulers.kubernetes.node_demands import (
    PREFERRED,
    REQUIRED,
    OwnNodes,
    check_size,
    may_run_on,
    own_nodes,
    own_spec,
    refused_nodes,
)
from powerhall_optimizer.schedulers.kubernetes.objects import Object, part
from powerhall_optimizer.schedulers.kubernetes.pod_requests import gpus_of, quantity
from powerhall_optimizer.schedulers.skip_reasons import LeftOut, LeftOutCause, Skip, SkipReason

__all__ = ["Confined", "Confinement", "confined_spec", "freed_spec"]

_MOST_PREFERRED = 100
"""A larger job finds its nodes among those of its pool without a preference."""
Pool = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Confined:
    """Where a job may run: on nodes with these labels, preferably the planned ones, or on nodes of these names."""

    planned: tuple[str, ...]
    labels: dict[str, str] = field(default_factory=dict)
    by_name: bool = True


class Confinement:
    """The cluster's nodes as a job's pods may choose them."""

    def __init__(self, site: Site, nodes: Iterable[Object], settings: KubernetesSettings) -> None:
        self._site, self._settings = site, settings
        self._pools = _pools(site)
        self._nodes = {
            name: node
            for node in nodes
            if (name := str(part(node, "metadata").get("name"))) in self._pools or _may_have_gpus(node, settings)
        }
        self._reached: dict[bytes, frozenset[str]] = {}

    def eligible(self, raw: Object) -> frozenset[str] | LeftOut | None:
        """Return the site's nodes on which a plan may put a job: None for all that are listed, or why it may not."""
        specs = self._own_specs(raw)
        may = frozenset.intersection(*map(self._reach, specs)) & self._pools.keys()
        if not may and self._nodes.keys() & self._pools.keys():
            return LeftOut(LeftOutCause.NO_NODES)
        if raw.get("kind") == "JobSet":
            kept = [self._by_labels(raw, specs, pool) for pool in sorted({self._pools[node] for node in may})]
            inside = frozenset[str]().union(*(found[1] for found in kept if found))
            if may and not inside:
                return LeftOut(LeftOutCause.NOT_CONFINED, value=self._wanted_labels())
            may &= inside
        may = may - refused_nodes(raw) or may
        return None if may >= self._nodes.keys() & self._pools.keys() else may

    def reach(self, raw: Object) -> frozenset[str]:
        """Return the site's nodes to which pods of a job may come as it is now; all where it cannot be read."""
        try:
            groups = gpu_groups(raw, self._settings.gpu_resource)
            found = frozenset[str]().union(*(self._reach(_choice(group.spec)) for group in groups))
        except Rejected:
            found = frozenset()
        return found & self._pools.keys() or frozenset(self._pools)

    def where(self, raw: Object, planned: Sequence[str]) -> Confined | SkipReason:
        """Return how a job is kept where it is planned, or why it cannot be."""
        specs = self._own_specs(raw)
        for node in planned:
            if node in self._nodes and not all(node in self._reach(spec) for spec in specs):
                return SkipReason(Skip.OTHER_NODES, value=node)
        pools = {self._pools.get(node, ()) for node in planned}
        pool = pools.pop() if len(pools) == 1 else ()
        found = self._by_labels(raw, specs, pool) if pool else None
        if found and found[1].issuperset(planned):
            return Confined(tuple(planned), found[0], by_name=False)
        if raw.get("kind") == "JobSet":
            return SkipReason(Skip.NOT_CONFINED, value=self._wanted_labels())
        if pool and not self._packs(raw, planned):  # pods that do not fill whole nodes need more of them
            may = frozenset.intersection(*map(self._reach, specs))
            return Confined(tuple(node for node, its in self._pools.items() if its == pool and node in may))
        return Confined(tuple(planned))

    def _own_specs(self, raw: Object) -> list[Object]:
        """Return what each group of pods with GPUs asks of its nodes, as its user wrote it."""
        own = zip(pod_groups(raw), own_nodes(raw), strict=True)
        resource = self._settings.gpu_resource
        specs = [own_spec(raw, group, one) for group, one in own if _takes(group, resource)]
        return specs or [{}]

    def _reach(self, spec: Object, labels: dict[str, str] | None = None) -> frozenset[str]:
        """Return the names of the nodes that a specification may choose, among those with the labels."""
        key = msgspec.json.encode((spec, labels), order="deterministic")
        if key not in self._reached:
            check_size(spec)
            only: Object = {"nodeSelector": labels or {}}
            self._reached[key] = frozenset(
                name for name, node in self._nodes.items() if may_run_on(spec, node) and may_run_on(only, node)
            )
        return self._reached[key]

    def _by_labels(
        self, raw: Object, specs: Sequence[Object], pool: Pool
    ) -> tuple[dict[str, str], frozenset[str]] | None:
        """Return labels that keep a job within a pool, and the nodes that it may use then; None where none do."""
        kind, hall = pool[:2]
        labels = {self._settings.hall_label: hall}
        tries = [labels, labels | {self._settings.node_type_label: kind}]
        if raw.get("kind") == "JobSet":  # its own selector may do, or a cluster of one pool
            tries.append({})
        for wanted in tries:
            reached = [self._reach(spec, wanted) for spec in specs]
            inside = all(self._pools.get(node) == pool for one in reached for node in one)
            if inside and (both := frozenset.intersection(*reached)):
                return wanted, both
        return None

    def _packs(self, raw: Object, planned: Sequence[str]) -> bool:
        """Return whether the pods of a job find room on the planned nodes, which several of them fill."""
        if len(planned) == 1:
            return True
        index = SiteIndex.of(self._site)
        free = [index.node_type(node).gpus for node in planned]
        sizes = [(gpus_of(one.spec, self._settings.gpu_resource), one.count) for one in pod_groups(raw)]
        for gpus, count in sorted((one for one in sizes if one[0]), reverse=True):
            left = count
            for number, room in enumerate(free):
                taken = min(left, room // gpus)
                free[number] -= taken * gpus
                left -= taken
            if left:
                return False
        return True

    def _wanted_labels(self) -> str:
        return f"label the nodes {self._settings.hall_label}=HALL and {self._settings.node_type_label}=TYPE"


def _pools(site: Site) -> dict[str, Pool]:
    """Return the pool of every node: its type, hall, and the zones with a limit that carry it."""
    index = SiteIndex.of(site)
    limited = {zone for zone, limit_w in index.limits_w.items() if limit_w is not None} | site.budgets.keys()
    found: dict[str, Pool] = {}
    for rack in site.racks():
        below = (zone for zone in index.zones_above(rack.zone) if zone in limited)
        found |= dict.fromkeys(rack.nodes, (rack.node_type, index.hall_of_rack[rack.zone].zone, *below))
    return found


def _may_have_gpus(node: Object, settings: KubernetesSettings) -> bool:
    """Return whether pods with GPUs may come to a node; one that does not say what it has may take them."""
    room = part(node, "status", "allocatable") or part(node, "status", "capacity")
    try:
        return not room or any(
            quantity(count) > 0
            for name, count in room.items()
            if name == settings.gpu_resource or name.startswith(("nvidia.com/", "amd.com/", "deviceclass."))
        )
    except Rejected:
        return True


def _takes(group: PodGroup, resource: str) -> bool:
    return bool(group.count and gpus_of(group.spec, resource))


def _choice(spec: Object) -> Object:
    """Return the part of a pod specification that chooses nodes."""
    affinity = {"nodeAffinity": part(spec, "affinity", "nodeAffinity")}
    return {"nodeName": spec.get("nodeName"), "nodeSelector": part(spec, "nodeSelector"), "affinity": affinity}


def confined_spec(raw: Object, resource: str, where: Confined) -> Object:
    """Return the part of a merge patch of a job's spec that confines its pods; empty where they are so already."""
    return _edited(raw, resource, where)


def freed_spec(raw: Object, resource: str) -> Object:
    """Return the part of a merge patch of a job's spec that gives it back what its user asked of its nodes."""
    return _edited(raw, resource, None)


def _edited(raw: Object, resource: str, where: Confined | None) -> Object:
    write = _selector if raw.get("kind") == "JobSet" else _affinity
    own = zip(pod_groups(raw), own_nodes(raw), strict=True)
    edits = [write(group.spec, one, where) if _takes(group, resource) else {} for group, one in own]
    return edited_spec(raw, edits)


def _selector(spec: Object, own: OwnNodes, where: Confined | None) -> Object:
    wanted = own.node_selector | (where.labels if where else {})
    now = part(spec, "nodeSelector")
    if wanted == now:
        return {}
    return {"nodeSelector": cast("Object", dict.fromkeys(now)) | cast("Object", wanted)}


def _affinity(spec: Object, own: OwnNodes, where: Confined | None) -> Object:
    preferred: list[Object] = list(own.preferred)
    terms: list[Object] = [one for one in own.required if one.get("matchExpressions") or one.get("matchFields")]
    if where and where.by_name:
        terms = [_narrowed(term, "matchFields", [_named(node)]) for node in where.planned for term in terms or [{}]]
    elif where:
        asked: list[Object] = [{"key": key, "operator": "In", "values": [value]} for key, value in where.labels.items()]
        terms = [_narrowed(term, "matchExpressions", asked) for term in terms or [{}]]
        if len(where.planned) <= _MOST_PREFERRED:
            preferred += [{"weight": 100, "preference": {"matchFields": [_named(node)]}} for node in where.planned]
    else:
        terms = list(own.required)
    now = OwnNodes.of(spec)
    if (now.required, now.preferred) == (terms, preferred):
        return {}
    required = {"nodeSelectorTerms": terms} if terms else None
    return {"affinity": {"nodeAffinity": {REQUIRED: required, PREFERRED: preferred or None}}}


def _named(node: str) -> Object:
    return {"key": "metadata.name", "operator": "In", "values": [node]}


def _narrowed(term: Object, part_of_it: str, asked: list[Object]) -> Object:
    """Return a term with further conditions."""
    return term | {part_of_it: [*cast("list[Object]", term.get(part_of_it) or []), *asked]}


def host_list(nodes: Iterable[str]) -> str:
    """Return nodes as a host list, in order of their names."""
    return compress(sorted(nodes))
