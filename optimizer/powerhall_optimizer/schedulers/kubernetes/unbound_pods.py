"""Pods of admitted jobs that are on no node yet: they may start at any moment, and are counted as if they ran."""

from collections.abc import Collection, Iterable

import msgspec

from powerhall.hostlist import compress, expand
from powerhall.jobs.left_out import LeftOut as CountedJob
from powerhall.jobs.left_out import LeftOutCode
from powerhall.jobs.model import Job
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.schedulers.kubernetes.gangs import pod_groups
from powerhall_optimizer.schedulers.kubernetes.objects import Object
from powerhall_optimizer.schedulers.kubernetes.pod_requests import claims_devices, gpus_of

__all__ = ["admitted_gpus", "in_each_hall", "with_unbound"]


def admitted_gpus(raw: Object, resource: str, site: Site) -> int:
    """Return the GPUs that all pods of an admitted job may hold at once, and at most those of the site.

    A pod that claims devices, or a job whose numbers cannot be read, counts as a node of the most GPUs.
    """
    kinds = [site.node_types[rack.node_type] for rack in site.racks() for _ in rack.nodes]
    most = max((kind.gpus for kind in kinds), default=1)
    try:
        asked = sum(
            group.count * (most if claims_devices(group.spec) else gpus_of(group.spec, resource))
            for group in pod_groups(raw)
        )
    except Rejected:
        asked = most
    return min(asked, sum(kind.gpus for kind in kinds))


def with_unbound(job: Job, more: int, site: Site, free: dict[str, int], may: Collection[str]) -> tuple[Job, int]:
    """Return a running job with `more` GPUs, and those for which no node of its hall and type has room.

    They are on its own nodes first, then on those of the most free GPUs, and are taken from the `free` ones; `may` are
    the nodes to which its pods may come.
    """
    if more <= 0 or job.hall is None or not job.nodes or job.gpu_share is not None:
        return job, max(0, more)
    on = dict(zip(expand(job.nodes), job.gpus_on_nodes, strict=True))
    racks = SiteIndex.of(site).halls[job.hall].racks()
    nodes = [node for rack in racks if rack.node_type == job.node_type for node in rack.nodes if node in may]
    taken = _take(more, sorted(nodes, key=lambda node: (node not in on, -free.get(node, 0))), free)
    on |= {node: on.get(node, 0) + gpus for node, gpus in taken.items()}
    nodes = sorted(on)
    split = tuple(on[node] for node in nodes)
    left = more - sum(taken.values())
    return msgspec.structs.replace(job, gpus=sum(split), nodes=compress(nodes), gpus_on_nodes=split), left


def in_each_hall(name: str, gpus: int, site: Site, free: dict[str, int], may: Collection[str]) -> list[CountedJob]:
    """Return entries that count GPUs of pods to come in each of several halls to which they may come; else none.

    They are on the free nodes of the highest power there, so that no hall is exceeded wherever they come.
    """
    index = SiteIndex.of(site)
    found: list[CountedJob] = []
    for hall in index.halls.values():
        kinds = {node: site.node_types[rack.node_type] for rack in hall.racks() for node in rack.nodes if node in may}
        order = sorted(kinds, key=lambda node: -kinds[node].max_power_w / kinds[node].gpus)
        if taken := _take(gpus, order, free):
            nodes = tuple(sorted(taken))
            on, entry = tuple(taken[node] for node in nodes), name if not found else f"Unbound:{name} {hall.zone}"
            found.append(
                CountedJob(
                    entry,
                    LeftOutCode.COUNTED,
                    "",
                    running=True,
                    gpus=sum(on),
                    nodes=compress(nodes),
                    gpus_on_nodes=on,
                )
            )
    return found


def _take(gpus: int, nodes: Iterable[str], free: dict[str, int]) -> dict[str, int]:
    """Take GPUs from the free ones of nodes, in their order; return how many on each."""
    taken: dict[str, int] = {}
    for node in nodes:
        count = min(gpus, free.get(node, 0))
        if count > 0:
            taken[node] = count
            free[node] -= count
            gpus -= count
    return taken
