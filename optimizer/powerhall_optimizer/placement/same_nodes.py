"""Give jobs whose decision stands the nodes of the last plan, before any other job that waits chooses."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from powerhall.hostlist import expand
from powerhall.plan.plan import Placement
from powerhall_optimizer.placement.node_occupancy import NodeOccupancy, Split
from powerhall_optimizer.placement.placer import Placer
from powerhall_optimizer.problem.gang_blocks import Parts
from powerhall_optimizer.problem.site_problem import Choice
from powerhall_optimizer.problem.standing import HeldProblem

__all__ = ["keep_nodes", "return_to_nodes"]

_TURNS = 3


def keep_nodes(placer: Placer, nodes: Mapping[int, Sequence[Placement]], held: HeldProblem) -> None:
    """Place jobs with a standing decision on these nodes where they are free, the firm ones first."""
    placer.homes.gain = held.standing.gain
    placer.homes.firm = frozenset(np.flatnonzero(held.standing.firm).tolist())
    keeps = dict(zip(held.held.tolist(), held.own_options.tolist(), strict=True))
    for job, option in keeps.items():
        split = _split(placer, placer.built.choices[option], nodes.get(job, ()))
        if split is not None:
            placer.homes.of[job] = option, int(held.standing.start[job]), split
    kept = [job for job in placer.homes.of if placer.option[job] == keeps[job] and job not in placer.splits]
    for job in sorted(kept, key=lambda job: (not held.standing.firm[job], placer.turn(job))):
        option, start, split = placer.homes.of[job]
        if placer.home(job, option, start) is not None:
            placer.put_at(job, option, start, split)


def return_to_nodes(placer: Placer) -> None:
    """Put jobs that were moved to other nodes meanwhile back on theirs, where those are free again."""
    for _ in range(_TURNS):
        if not sum(_returns(placer, job) for job in sorted(placer.homes.of.keys() & placer.splits.keys())):
            break


def _returns(placer: Placer, job: int) -> bool:
    option, start, _ = placer.homes.of[job]
    now = placer.splits[job]
    if (placer.option[job], placer.start[job]) != (option, start) or placer.homes.has(job):
        return False
    placer.drop(job)
    home = placer.home(job, option, start)
    placer.put_at(job, option, start, now if home is None else home)
    return home is not None


def _split(placer: Placer, choice: Choice, placements: Sequence[Placement]) -> Split | None:
    """Return the nodes by their numbers; None where the job may not start there, or they are not for its GPUs."""
    occupancy, gpus = placer.occupancy(choice), choice.job.gpus
    try:
        named = [(node, part.gpus_per_node) for part in placements for node in expand(part.nodes)]
    except ValueError:  # the last plan is not trusted
        return None
    need = max(1, -(-gpus // occupancy.per_node))
    shape = [gpus - occupancy.per_node * (need - 1), *[occupancy.per_node] * (need - 1)]
    known = {node for node, _ in named if node in occupancy.index}
    if len(known) != len(named) or sorted(part for _, part in named) != shape:
        return None
    split = [(occupancy.index[node], part) for node, part in named]
    barred = occupancy.barred_for(choice.job.allowed_nodes)
    if any(barred[node] for node, _ in split) or not _in_blocks(occupancy, split, placer.within(choice)):
        return None
    return split


def _in_blocks(occupancy: NodeOccupancy, split: Split, within: tuple[str, Parts] | None) -> bool:
    """Whether nodes make up whole parts of blocks, where the job must stay within them."""
    if within is None:
        return True
    level, parts = within
    block = occupancy.blocks_of(level)
    counts = Counter(int(block[node]) for node, _ in split)
    return -1 not in counts and not any(count % parts.nodes for count in counts.values())
