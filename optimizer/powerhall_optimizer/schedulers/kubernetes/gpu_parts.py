"""Parts of GPUs in Kubernetes: a MIG instance or a shared GPU that a pod asks for, and the devices that pods claim."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from powerhall.hostlist import compress
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.schedulers.kubernetes.objects import Object, objects, part
from powerhall_optimizer.schedulers.kubernetes.pod_requests import SLICE_PREFIXES, has_claims, quantity

__all__ = ["Part", "PartNodes", "claim_reader", "claimed_devices"]

_NO_GPU = ("compute-domain.nvidia.com",)
"""Drivers whose devices are no GPUs, beside which GPUs are claimed."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a GPU that a job asks for, and where it is: its share, node types and nodes (host list)."""

    share: str
    node_types: tuple[str, ...]
    nodes: str


@dataclass(frozen=True, slots=True)
class PartNodes:
    """The site's nodes that offer each resource of parts, all of their GPUs split as the site file says."""

    of: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @staticmethod
    def read(site: Site, nodes: Iterable[Object]) -> "PartNodes":
        """Return what the cluster's nodes offer."""
        found: dict[str, set[str]] = {}
        rack_of = SiteIndex.of(site).rack_of
        for node in nodes:
            name = str(part(node, "metadata").get("name"))
            if name not in rack_of:
                continue
            kind = site.node_types[rack_of[name].node_type]
            for resource, count in part(node, "status", "allocatable").items():
                is_mig = resource.startswith(SLICE_PREFIXES[0])
                if not resource.startswith(SLICE_PREFIXES) or kind.gpu_parts == 1 or kind.mig != is_mig:
                    continue
                try:
                    is_whole = quantity(count) == kind.gpus * kind.gpu_parts
                except Rejected:
                    is_whole = False
                if is_whole:
                    found.setdefault(resource, set()).add(name)
        return PartNodes({resource: frozenset(names) for resource, names in found.items()})

    def part_of(self, spec: Object, gpu_resource: str, site: Site) -> Part | None:
        """Return the one part that a pod asks for; None where it asks for several or other GPUs, or none offers it.

        Several parts of a pod may be on several GPUs, so that they are no part of one.
        """
        asked: list[tuple[str, int]] = []
        for one in (*objects(spec.get("containers")), *objects(spec.get("initContainers"))):
            limits, asks = part(one, "resources", "limits"), part(one, "resources", "requests")
            names = {name for name in (*limits, *asks) if name.startswith(SLICE_PREFIXES) or name == gpu_resource}
            asked += [(name, quantity(limits.get(name, asks.get(name, 0)))) for name in names]
        asked = [(name, count) for name, count in asked if count]
        if len(asked) != 1 or asked[0][1] != 1 or not self.of.get(asked[0][0]):
            return None
        nodes = self.of[asked[0][0]]
        kinds = {SiteIndex.of(site).rack_of[node].node_type for node in nodes}
        parts = {site.node_types[name].gpu_parts for name in kinds}
        if len(parts) != 1:
            return None
        return Part(f"1/{parts.pop()}", tuple(sorted(kinds)), compress(sorted(nodes)))


def claim_reader(
    pods: Sequence[Object], list_claims: Callable[[], Iterable[Object]]
) -> Callable[[Object, int], int | None]:
    """Return what says how many GPUs a pod with claims holds; claims are listed where a pod has one."""
    claims: dict[tuple[str, str], Object] = {}
    for claim in list_claims() if any(map(has_claims, pods)) else ():
        meta = part(claim, "metadata")
        claims[str(meta.get("namespace") or ""), str(meta.get("name"))] = claim
    return lambda pod, gpus: claimed_devices(pod, gpus, claims)


def claimed_devices(pod: Object, gpus: int, claims: Mapping[tuple[str, str], Object]) -> int | None:
    """Return the GPUs that a pod holds that asks for `gpus` and has claims; None where that is not known.

    `claims` are by namespace and name. Each device counts as a whole GPU, a partition of one too, since it may draw all
    of it, and so does one of a driver that is not known. Devices behind an extended resource are those asked for.
    """
    namespace = str(part(pod, "metadata").get("namespace") or "")
    status = part(pod, "status")
    made = {str(one.get("name")): one.get("resourceClaimName") for one in objects(status.get("resourceClaimStatuses"))}
    asked = objects(part(pod, "spec").get("resourceClaims"))
    names = [one.get("resourceClaimName") or made.get(str(one.get("name"))) for one in asked]
    own = _devices(claims.get((namespace, str(name))) for name in names)
    extended = part(status, "extendedResourceClaimStatus")
    behind = _devices([claims.get((namespace, str(extended.get("resourceClaimName"))))] if extended else [])
    return None if own is None or behind is None else own + max(gpus, behind)


def _devices(claims: Iterable[Object | None]) -> int | None:
    """Return the GPUs of claims; None where one is not known or not allocated."""
    found: set[tuple[object, object, object]] = set()
    for claim in claims:
        results = part(claim or {}, "status", "allocation", "devices").get("results")
        if not isinstance(results, list):
            return None
        for one in objects(results):
            if one.get("driver") not in _NO_GPU:
                found.add((one.get("driver"), one.get("pool"), one.get("device")))
    return len(found)
