"""Blocks of gangs for the checker: jobs that start stay within theirs, and what the blocks of a pool hold at most.

For every size `s` the parts of jobs that run at once keep `sum floor(nodes of part / s) <= sum floor(nodes of block /
s)`: whole nodes are disjoint, and floor(x / s) of a sum is at least the sum of the floors. Such sums are capacities of
the bound, `HALL/TYPE/LEVEL/SIZE.blocks`. Nothing here is shared with the planner.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan.plan import Assignment, Snapshot
from powerhall.site.topology import Site

__all__ = ["PoolBlocks", "block_checks", "level_checks", "pool_blocks"]

_Broken = tuple[str, str]
"""Where, and what."""


def _block_of(site: Site, level: str) -> dict[str, str]:
    """Return the block of every node at a level: a zone of that kind, or a block of the site file."""
    named = [entry for entry in site.levels if entry.name == level]
    if named:
        return {node: block.name for block in named[0].blocks for node in expand(block.nodes)}
    found: dict[str, str] = {}
    for hall in site.halls:
        for row in hall.rows:
            for rack in row.racks:
                zone = {"hall": hall.zone, "row": row.zone, "rack": rack.zone}.get(level)
                found |= {} if zone is None else dict.fromkeys(rack.nodes, zone)
    return found


def level_checks(site: Site) -> Iterator[_Broken]:
    """Yield nodes that are in two blocks of a level, and levels that are named twice or as a kind of zone."""
    names = [level.name for level in site.levels] + ["rack", "row", "hall"]
    yield from ((name, "is a level of blocks twice") for name, count in Counter(names).items() if count > 1)
    for level in site.levels:
        counts = Counter(node for block in level.blocks for node in expand(block.nodes))
        yield from ((node, f"is in two blocks of {level.name}") for node, count in counts.items() if count > 1)


def _parts(job: Job, per_node: int) -> tuple[int, int]:
    """Return (parts, nodes of each); no parts where `block_nodes` does not divide the job's nodes."""
    nodes = -(-job.gpus // per_node)
    each = nodes if job.block_nodes is None else job.block_nodes
    return (nodes // each if nodes % each == 0 else 0), each


def block_checks(snapshot: Snapshot, pairs: Sequence[tuple[Job, Assignment]]) -> Iterator[_Broken]:
    """Yield jobs that start outside a block of their level, or in parts that are not whole.

    A job that runs already stays on its nodes, wherever they are.
    """
    known: dict[str, dict[str, str]] = {}
    for job, entry in pairs:
        kind = snapshot.site.node_types.get(entry.node_type)
        if job.within is None or job.state == "running" or kind is None:
            continue
        block_of = known.setdefault(job.within, _block_of(snapshot.site, job.within))
        nodes = [node for placement in entry.placements for node in expand(placement.nodes)]
        outside = next((node for node in nodes if node not in block_of), None)
        if outside is not None:
            yield job.job_id, f"starts on {outside}, which is in no block of {job.within}"
            continue
        parts, each = _parts(job, kind.gpus)
        counts = Counter(block_of[node] for node in nodes)
        if parts == 0:
            yield job.job_id, f"has {len(nodes)} nodes, which parts of {each} do not divide"
        elif any(count % each for count in counts.values()):
            held = ", ".join(f"{count} in {block}" for block, count in sorted(counts.items())[:4])
            yield job.job_id, f"must have parts of {each} nodes, each within one block of {job.within}; has {held}"


class PoolBlocks:
    """The usable nodes of a pool by block (`sizes`, per level), and the sizes of parts that the queue has there."""

    def __init__(self, snapshot: Snapshot, place: tuple[str, str], sizes: Mapping[str, Sequence[int]]) -> None:
        self.slots = snapshot.slots
        self.place = place
        self.per_node = snapshot.site.node_types[place[1]].gpus
        self.sizes = sizes
        self.counted = sorted(
            {
                (job.within, each)
                for job in snapshot.jobs
                if job.within is not None and job.state == "waiting" and (each := _parts(job, self.per_node)[1]) > 1
            }
        )

    def holds(self, job: Job) -> bool:
        """Whether the blocks hold the job with nothing else on them; always where it needs none."""
        if job.within is None:
            return True
        parts, each = _parts(job, self.per_node)
        return parts > 0 and self._most(job.within, each) >= parts

    def _most(self, level: str, size: int) -> int:
        return sum(nodes // size for nodes in self.sizes.get(level, ()))

    def _name(self, level: str, size: int) -> str:
        return f"{'/'.join(self.place)}/{level}/{size}.blocks"

    def amounts(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return per size of the queue's parts how many the blocks hold, per slot."""
        return {self._name(*key): np.full(self.slots, self._most(*key), np.int64) for key in self.counted}

    def uses(self, job: Job) -> dict[str, int]:
        """Return what a job that starts takes of these amounts: the whole sizes in each of its parts."""
        parts, each = _parts(job, self.per_node)
        levels = [(level, size) for level, size in self.counted if level == job.within and size <= each]
        return {self._name(level, size): parts * (each // size) for level, size in levels}


def pool_blocks(snapshot: Snapshot, places: Iterable[tuple[str, str]]) -> dict[tuple[str, str], PoolBlocks]:
    """Return the blocks of every pool (hall, node type); nodes that are down or without telemetry do not count."""
    closed = {*snapshot.off_nodes, *snapshot.down_nodes, *snapshot.stale_nodes}
    levels = sorted({job.within for job in snapshot.jobs if job.within is not None and job.state == "waiting"})
    sizes: dict[tuple[str, str], dict[str, list[int]]] = {place: {} for place in places}
    for level in levels:
        block_of = _block_of(snapshot.site, level)
        for hall in snapshot.site.halls:
            counts: dict[str, Counter[str]] = {}
            for rack in hall.racks():
                usable = (block_of[node] for node in rack.nodes if node in block_of and node not in closed)
                counts.setdefault(rack.node_type, Counter()).update(usable)
            for kind, found in counts.items():
                sizes[hall.zone, kind][level] = list(found.values())
    return {place: PoolBlocks(snapshot, place, of_place) for place, of_place in sizes.items()}
