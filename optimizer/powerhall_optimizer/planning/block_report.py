"""What the blocks of a plan have free for a job that must stay within one: by block, at other levels, for fewer nodes.

Nodes alone are looked at, beside everything as planned; power and cooling are explained elsewhere.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan.plan import Plan
from powerhall_optimizer.physics.site_conditions import SiteConditions, time_text
from powerhall_optimizer.problem.eligibility import may_run_on
from powerhall_optimizer.problem.gang_blocks import Parts, parts_of

__all__ = ["block_lines"]

_MOST_SHOWN = 4
Free = npt.NDArray[np.int64]
"""Nodes of each block that are empty for as long as the job takes, from each of its starts on: [blocks, starts]."""


@dataclass(frozen=True, slots=True)
class _Pool:
    """The nodes of one type in one hall, the job's parts there, and which nodes are empty from which start: [N, S]."""

    parts: Parts
    nodes: Sequence[str]
    empty: npt.NDArray[np.bool_]

    def free(self, block_of: Mapping[str, str]) -> tuple[list[str], Free, Free]:
        """Return the blocks of a level, their free nodes per start, and their nodes."""
        names = sorted({block_of[node] for node in self.nodes if node in block_of})
        number = {name: i for i, name in enumerate(names)}
        own = np.array([number[block_of[node]] if node in block_of else -1 for node in self.nodes], np.int64)
        free = np.zeros((len(names), self.empty.shape[1]), np.int64)
        np.add.at(free, own[own >= 0], self.empty[own >= 0])
        return names, free, np.bincount(own[own >= 0], minlength=len(names))


def block_lines(plan: Plan, job: Job) -> Iterator[str]:
    """Yield which blocks have the most nodes free for a job that waits, and what would find room instead."""
    if job.within is None or job.state == "running":
        return
    conditions = SiteConditions(plan.snapshot)
    begin = _first_start(plan, job)
    pools = list(_pools(plan, conditions, job, begin))
    levels = conditions.index.block_levels

    def when(start: int) -> str:
        return time_text(plan.snapshot.start_s + (begin + start) * plan.snapshot.slot_s)

    room = {level: first for level, of in levels.items() if (first := _first_room(pools, of)) is not None}
    if job.within in room:
        yield f"  blocks: {job.within} has its nodes free from {when(room[job.within])}"
        return
    most = [line for pool in pools for line in _most_free(pool, levels.get(job.within, {}), job, when)]
    yield from most[:_MOST_SHOWN] or [f"  blocks: no {job.within} has a node free for as long as the job takes"]
    others = [f"{level} from {when(first)}" for level, first in room.items()]
    if others:
        yield f"  blocks: nodes enough are free within {', '.join(others)}"


def _first_start(plan: Plan, job: Job) -> int:
    s = plan.snapshot
    return min(s.slots - 1, max(0, math.ceil((max(job.submit_s, job.earliest_s or 0.0) - s.start_s) / s.slot_s)))


def _pools(plan: Plan, conditions: SiteConditions, job: Job, begin: int) -> Iterator[_Pool]:
    s = plan.snapshot
    busy: dict[str, list[tuple[int, int]]] = {}
    for entry in plan.assignments:
        span = (entry.start_s - s.start_s) // s.slot_s, -(-(entry.end_s - s.start_s) // s.slot_s)
        for node in (node for placement in entry.placements for node in expand(placement.nodes)):
            busy.setdefault(node, []).append(span)
    width = min(s.slots, max(1, math.ceil(job.duration_s / s.slot_s - 1e-9)))
    for hall in conditions.site.halls:
        for name in dict.fromkeys(rack.node_type for rack in hall.racks()):
            parts = parts_of(job, conditions.site.node_types[name].gpus)
            racks = [rack for rack in hall.racks() if rack.node_type == name]
            nodes = [node for rack in racks for node in conditions.usable(rack)]
            if parts is None or not nodes or not may_run_on(job, hall.zone, name):
                continue
            used = np.zeros((len(nodes), s.slots + width - 1), bool)  # nothing is counted behind the horizon
            for number, node in enumerate(nodes):
                for first, last in busy.get(node, ()):
                    used[number, first : min(last, s.slots)] = True
            windows = sliding_window_view(used, width, axis=1)
            yield _Pool(parts, nodes, ~np.any(windows, axis=2, keepdims=True)[:, begin:, 0])


def _first_room(pools: Sequence[_Pool], block_of: Mapping[str, str]) -> int | None:
    """Return the first start at which the blocks of a level hold all parts."""
    found: list[int] = []
    for pool in pools:
        _, free, _ = pool.free(block_of)
        fits = (free // pool.parts.nodes).sum(axis=0) >= pool.parts.count
        found += [int(np.argmax(fits))] if fits.any() else []
    return min(found, default=None)


def _most_free(pool: _Pool, block_of: Mapping[str, str], job: Job, when: Callable[[int], str]) -> Iterator[str]:
    """Yield the blocks with the most free nodes, each at the start at which it has them first."""
    names, free, size = pool.free(block_of)
    if not names:
        return
    most = free.max(axis=1)
    parts = f" in parts of {pool.parts.nodes}" if pool.parts.count > 1 else ""
    need = pool.parts.count * pool.parts.nodes
    for block in (b for b in np.argsort(-most, kind="stable")[:_MOST_SHOWN].tolist() if most[b]):
        at = when(int(np.argmax(free[block])))
        yield (
            f"  blocks: {names[block]} has at most {most[block]} of its {size[block]} nodes free together, from {at}; "
            f"the job needs {need}{parts} within {job.within}"
        )
