"""Parts of GPUs as Slurm gives them: shards, MPS units and MIG instances, as a share of one GPU of a node."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from powerhall.site.topology import NodeType
from powerhall_optimizer.schedulers.slurm.records import NodeRecord, Record
from powerhall_optimizer.schedulers.slurm.tres import Gres, parse_gres

__all__ = ["UsedParts", "asked_shares", "running_share", "share_on", "slice_gpus"]


@dataclass(slots=True)
class UsedParts:
    """What running jobs have of nodes, as far as they were looked at: GPUs with parts, and MIG slices, by number."""

    gpus: set[tuple[str, int]] = field(default_factory=set)
    slices: set[tuple[str, int]] = field(default_factory=set)


def slice_gpus(gres: Gres, node: str, has: Gres, kind: NodeType, used: UsedParts) -> set[int] | None:
    """Return the GPUs of a node that MIG slices are on, and note the slices; None where it is not known.

    Slurm numbers the slices of a node by profile, and those of one profile GPU by GPU: so the number tells the GPU
    where every GPU of a node has the same slices. A slice that another job has already is not believed.
    """
    each, rest = divmod(has.mig, kind.gpus)
    is_alike = len(has.slices) == 1 and not rest and not has.whole
    slices = {(node, number) for number in gres.slice_indices}
    if not is_alike or not each or len(slices) != gres.mig or slices & used.slices:
        return None
    used.slices |= slices
    return {number // each for number in gres.slice_indices}


def share_on(asked: Gres, has: Gres, kind: NodeType) -> Fraction | None:
    """Return the share of one GPU that a request takes on a node; None where the site does not plan such parts there.

    A node's GPUs have equal parts: as many shards or MPS units each, or the instances of one MIG profile.
    """
    kinds = [bool(asked.slices), asked.shards > 0, asked.mps > 0]
    if asked.whole or sum(kinds) != 1 or kind.gpu_parts == 1 or kind.mig != kinds[0]:
        return None
    if kind.mig:
        profile = next(iter(asked.slices))
        whole = kind.gpus * kind.gpu_parts
        return Fraction(1, kind.gpu_parts) if asked.mig == 1 and has.slices == {profile: whole} else None
    count, total = (asked.shards, has.shards) if asked.shards else (asked.mps, has.mps)
    if has.whole != kind.gpus or not total or total % has.whole:
        return None
    share = Fraction(count * has.whole, total)
    return share if share <= 1 else None


def asked_shares(
    record: Record, nodes: Iterable[str], known: Mapping[str, NodeRecord], kinds: Mapping[str, NodeType]
) -> dict[Fraction, set[str]]:
    """Return the shares of a GPU that a waiting job would take, with the nodes of each; none where it is no part."""
    found: dict[Fraction, set[str]] = {}
    if record.node_count != 1 or record.min_nodes != 1 or record.max_nodes > 1 or record.is_exclusive:
        return found
    for node in nodes:
        has = parse_gres(known[node].gres) if node in known else Gres()
        share = share_on(record.asked, has, kinds[node])
        if share is not None:
            found.setdefault(share, set()).add(node)
    return found


def running_share(
    record: Record, node: NodeRecord | None, kind: NodeType, used: UsedParts
) -> tuple[Fraction, int | None] | None:
    """Return the share of a running job on its one node, and the number of its GPU where Slurm says it.

    None where it has parts of several GPUs, or whole ones beside them.
    """
    if node is None or len(record.node_gres) != 1:
        return None
    gres = record.node_gres[0]
    has = parse_gres(node.gres)
    share = share_on(gres, has, kind)
    if share is None or len(gres.indices) > 1:
        return None
    numbers = gres.indices or slice_gpus(gres, node.name, has, kind, used) or set()
    return share, next(iter(numbers), None)
