"""The nodes and GPUs that a running job has: from `gres_detail` where Slurm gives it, in whole GPUs of each node."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from powerhall.hostlist import expand
from powerhall.site.index import SiteIndex
from powerhall.site.topology import NodeType
from powerhall_optimizer.schedulers.slurm.gpu_parts import UsedParts, slice_gpus
from powerhall_optimizer.schedulers.slurm.records import HOLDS_NODES, NodeRecord, Record
from powerhall_optimizer.schedulers.slurm.tres import Gres, parse_gres

__all__ = ["Allocation", "allocation", "gpus_somewhere", "has_nodes", "is_host_list", "running_place", "taken_whole"]


def has_nodes(record: Record) -> bool:
    """Whether a job has nodes now."""
    return record.state in HOLDS_NODES


def is_host_list(nodes: str) -> bool:
    """Whether a host list names nodes; false where it is empty or damaged."""
    try:
        return bool(expand(nodes))
    except ValueError:
        return False


def gpus_somewhere(record: Record, index: SiteIndex) -> int:
    """Return the most GPUs that a job on nodes that are not known may have: all of its nodes where it has parts."""
    if not record.is_part:
        return record.gpus
    return max(record.gpus, record.node_count * max(kind.gpus for kind in index.site.node_types.values()))


@dataclass(frozen=True, slots=True)
class Allocation:
    """Nodes of the site that a job has, and the GPUs on each of them; `is_known`: Slurm says how many are on which.

    `foreign`: it has other nodes too.
    """

    nodes: tuple[str, ...]
    gpus: tuple[int, ...]
    is_known: bool
    foreign: bool = False


def _whole(gres: Gres, node: str, kind: NodeType, record: NodeRecord | None, used: UsedParts) -> int:
    """Return the whole GPUs of a node that a job keeps from others: parts count as the GPUs that they are on.

    A GPU of which parts are counted already counts once. Where it is not said which GPUs the parts are on, each shard
    and each MIG slice may be on a GPU of its own.
    """
    has = parse_gres(record.gres if record is not None else "")
    gpus = gres.whole
    if has.whole > kind.gpus:  # the site file counts other units than Slurm
        gpus = -(-gpus * kind.gpus // has.whole)
    if gres.mig:
        on = slice_gpus(gres, node, has, kind, used)
        fresh = {(node, number) for number in on or ()} - used.gpus
        used.gpus |= fresh
        gpus += min(gres.mig, kind.gpus - min(has.whole, kind.gpus - 1)) if on is None else len(fresh)
    if gres.shards or gres.mps:
        fresh = {(node, number) for number in gres.indices} - used.gpus
        used.gpus |= fresh
        gpus += len(fresh) if gres.indices else min(kind.gpus, gres.shards + -(-gres.mps // 100))
    return min(gpus, kind.gpus)


def allocation(record: Record, nodes: Mapping[str, NodeRecord], index: SiteIndex, used: UsedParts) -> Allocation | None:
    """Return what a job has on nodes of the site; None where it has none of them, or its host list is damaged."""
    try:
        names = expand(record.nodes)
    except ValueError:
        return None
    known = [(number, name) for number, name in enumerate(names) if name in index.rack_of]
    if not known:
        return None
    foreign = len(known) < len(names)
    details = record.node_gres
    kinds = index.site.node_types
    sizes = [kinds[index.rack_of[name].node_type].gpus for _, name in known]
    is_short = not record.is_part and sum(gres.whole for gres in details) < min(record.gpus, sum(sizes))
    if len(details) == len(names) and not is_short and any(gres.whole or gres.is_part for gres in details):
        gpus = tuple(
            _whole(details[number], name, kinds[index.rack_of[name].node_type], nodes.get(name), used)
            for number, name in known
        )
        return Allocation(tuple(name for _, name in known), gpus, True, foreign)
    plain = tuple(name for _, name in known)
    if record.is_part or foreign:
        return Allocation(plain, tuple(sizes), False, foreign)
    if len(known) == 1:
        return Allocation(plain, (min(record.gpus, sizes[0]),), record.gpus <= sizes[0])
    each, rest = divmod(record.gpus, len(known))
    is_even = not rest and all(each == size for size in sizes)
    return Allocation(plain, (each,) * len(known), is_even)


def running_place(found: Allocation, index: SiteIndex) -> tuple[str, NodeType] | None:
    """Return the hall and node type of a job's nodes where they are the same for all."""
    racks = {index.rack_of[node].zone: index.rack_of[node] for node in found.nodes}
    places = {(index.hall_of_rack[zone].zone, rack.node_type) for zone, rack in racks.items()}
    if len(places) != 1:
        return None
    hall, kind = places.pop()
    return hall, index.site.node_types[kind]


def taken_whole(records: Iterable[Record], index: SiteIndex) -> set[str]:
    """Return nodes of the site that exclusive jobs have whole without having all their GPUs: nothing starts there."""
    found: set[str] = set()
    for record in records:
        if not (record.is_exclusive and has_nodes(record) and is_host_list(record.nodes)):
            continue
        nodes = [node for node in expand(record.nodes) if node in index.rack_of]
        if record.gpus < sum(index.site.node_types[index.rack_of[node].node_type].gpus for node in nodes):
            found.update(nodes)
    return found
