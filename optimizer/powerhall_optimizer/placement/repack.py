"""Gangs of a pool onto blocks again, exactly, where one found no block: CP-SAT over groups of like nodes.

Starts stay. Nodes in the same blocks (and in the same rack, where power limits of racks, rows or feeds are tight) form
a group. A whole-node gang takes a number of nodes of each group; runs that overlap take no more than the group has.
That is enough: gangs that take nodes in order of their starts always find as many free as were counted, because runs
are intervals and running jobs begin before all. So a placement of the gangs is found whenever there is one, as far as
the model is small enough (`_MOST_COUNTS`) and solved within its work; a gang's last node counts its full power.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from powerhall_optimizer.placement.node_occupancy import NodeOccupancy, Split
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.problem.gang_blocks import Parts

__all__ = ["Gang", "repacked"]

_MOST_COUNTS = 6_000
"""Counts (gangs times groups) of a model, at most."""
_WORK = 2.0
"""Deterministic seconds of CP-SAT."""


@dataclass(frozen=True, slots=True)
class Gang:
    """A gang that is to be placed: its number, nodes, slots, power and worth; `within` where it must stay in blocks."""

    job: int
    gpus: int
    nodes: int
    start: int
    end: int
    node_w: float
    worth: int
    within: tuple[str, Parts] | None


def repacked(occupancy: NodeOccupancy, gangs: Sequence[Gang]) -> dict[int, Split] | None:
    """Return the nodes of the gangs that fit together at their starts, those of most worth; None where it is too much.

    None of the gangs may hold nodes of the pool. Those that are not in the answer fit nowhere beside the others.
    """
    levels = sorted({gang.within[0] for gang in gangs if gang.within is not None})
    groups = _groups(occupancy, levels)
    if not gangs or len(gangs) * len(groups) > _MOST_COUNTS:
        return None
    counts = _Model(occupancy, gangs, groups).solve()
    return None if counts is None else _assigned(occupancy, gangs, groups, counts)


def _groups(occupancy: NodeOccupancy, levels: Sequence[str]) -> list[Ints]:
    """Return the nodes of each group."""
    keys = [occupancy.blocks_of(level) for level in levels]
    keys += [occupancy.rack_of] if occupancy.headroom.left else []
    if not keys:
        return [np.arange(len(occupancy.nodes))]
    _, group = np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)
    return [np.flatnonzero(group.ravel() == number) for number in range(int(group.max(initial=-1)) + 1)]


class _Model:
    """Counts of nodes per gang and group; every gang is optional."""

    def __init__(self, occupancy: NodeOccupancy, gangs: Sequence[Gang], groups: Sequence[Ints]) -> None:
        from ortools.sat.python import cp_model

        self.cp = cp_model
        self.model = cp_model.CpModel()
        self.gangs = gangs
        self.placed = [self.model.new_bool_var("") for _ in gangs]
        self.count = [[self.model.new_int_var(0, min(g.nodes, len(of)), "") for of in groups] for g in gangs]
        for number, gang in enumerate(gangs):
            self.model.add(sum(self.count[number]) == gang.nodes * self.placed[number])
            if gang.within is not None:
                self._stay(number, gang.within, occupancy, groups)
        for slot in sorted({gang.start for gang in gangs}):
            self._hold(slot, occupancy, groups)
        if occupancy.headroom.left:
            self._carry(occupancy, groups)
        self.model.maximize(sum(g.worth * placed for g, placed in zip(gangs, self.placed, strict=True)))

    def _stay(self, number: int, within: tuple[str, Parts], occupancy: NodeOccupancy, groups: Sequence[Ints]) -> None:
        """Every block holds whole parts of a gang, and nodes in no block none."""
        level, parts = within
        blocks: dict[int, list[int]] = {}
        for group, nodes in enumerate(groups):
            blocks.setdefault(int(occupancy.blocks_of(level)[nodes[0]]), []).append(group)
        for block, members in blocks.items():
            held = sum(self.count[number][group] for group in members)
            most = 0 if block < 0 else min(parts.count, sum(len(groups[group]) for group in members) // parts.nodes)
            self.model.add(held == parts.nodes * self.model.new_int_var(0, most, ""))

    def _hold(self, slot: int, occupancy: NodeOccupancy, groups: Sequence[Ints]) -> None:
        """The gangs that run when one starts take no more nodes of a group than are empty then."""
        here = [number for number, gang in enumerate(self.gangs) if gang.start <= slot < gang.end]
        for group, nodes in enumerate(groups):
            empty = int(np.count_nonzero((occupancy.busy[slot, nodes] == 0) & ~occupancy.closed[nodes]))
            self.model.add(sum(self.count[number][group] for number in here) <= empty)

    def _carry(self, occupancy: NodeOccupancy, groups: Sequence[Ints]) -> None:
        """Zones with tight power limits carry their groups' gangs in every slot."""
        headroom = occupancy.headroom
        rack = [occupancy.racks[int(occupancy.rack_of[nodes[0]])] for nodes in groups]
        edges = sorted({slot for gang in self.gangs for slot in (gang.start, gang.end)})
        for zone in headroom.left:
            members = [group for group, name in enumerate(rack) if zone in headroom.of_rack[name]]
            for first, last in pairwise(edges) if members else ():
                room_w = int(headroom.room_w(zone, first, last))
                here = [number for number, gang in enumerate(self.gangs) if gang.start <= first < gang.end]
                watts = {number: -int(-self.gangs[number].node_w // 1) for number in here}
                self.model.add(sum(watts[n] * self.count[n][group] for n in here for group in members) <= room_w)

    def solve(self) -> list[list[int]] | None:
        """Return the counts per gang and group; None where no answer was found within the work."""
        solver = self.cp.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.max_deterministic_time = _WORK
        if solver.solve(self.model) not in (self.cp.OPTIMAL, self.cp.FEASIBLE):
            return None
        return [[int(solver.value(count)) for count in of_gang] for of_gang in self.count]


def _assigned(
    occupancy: NodeOccupancy, gangs: Sequence[Gang], groups: Sequence[Ints], counts: Sequence[Sequence[int]]
) -> dict[int, Split]:
    """Return the nodes of every gang that was counted, those that start first choosing first."""
    busy = (occupancy.busy != 0) | occupancy.closed
    found: dict[int, Split] = {}
    for number in sorted(range(len(gangs)), key=lambda number: gangs[number].start):
        gang = gangs[number]
        chosen: list[int] = []
        for nodes, count in zip(groups, counts[number], strict=True):
            empty = nodes[~busy[gang.start : gang.end, nodes].any(axis=0)] if count else nodes[:0]
            chosen += empty[:count].tolist()
        if len(chosen) == gang.nodes:
            busy[gang.start : gang.end, chosen] = True
            found[gang.job] = occupancy.split_of(chosen, gang.gpus)
    return found
