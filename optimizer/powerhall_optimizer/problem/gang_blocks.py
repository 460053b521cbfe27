"""Blocks that a gang must stay within: how a job splits into parts, and what the blocks of a pool hold.

A job with `within` has every part in one block of that level. For any size `s` the parts of jobs that run at once keep

    sum over parts of floor(nodes / s)  <=  sum over blocks of floor(usable nodes / s)

because whole nodes are disjoint and floor(x / s) is superadditive. Such sums are resources of the problem for sizes at
which they say more than the pool's GPUs do; the placement finds the blocks themselves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan.plan import gpu_speed
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.problem.eligibility import may_run_at, may_run_on, running_type

__all__ = ["BlockSize", "Parts", "PoolBlocks", "block_uses", "parts_of"]

_MOST_SIZES = 6
"""Sizes that are counted per pool and level, those of most work first."""
BlockSize = tuple[str, int]
"""A level, and a number of nodes."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A job's nodes as `count` parts of `nodes` nodes, each in one block."""

    count: int
    nodes: int

    def fit(self, free: Iterable[int]) -> bool:
        """Whether blocks with so many free nodes hold all parts together."""
        return sum(nodes // self.nodes for nodes in free) >= self.count


def parts_of(job: Job, per_node: int) -> Parts | None:
    """Return the parts of a job on nodes of `per_node` GPUs; None where `block_nodes` does not divide its nodes."""
    nodes = -(-job.gpus // per_node)
    size = nodes if job.block_nodes is None else job.block_nodes
    return Parts(nodes // size, size) if nodes % size == 0 else None


class PoolBlocks:
    """The blocks of one node type in one hall, by level; only usable nodes count."""

    def __init__(self, conditions: SiteConditions, hall: str, kind: str) -> None:
        self.conditions = conditions
        self.hall, self.kind = hall, kind
        self.per_node = conditions.site.node_types[kind].gpus
        racks = conditions.index.halls[hall].racks()
        self.nodes = [node for rack in racks if rack.node_type == kind for node in conditions.usable(rack)]
        self._sizes: dict[str, dict[str, int]] = {}

    def sizes(self, level: str) -> Mapping[str, int]:
        """Return the usable nodes of each block of a level; none where the site does not have the level."""
        if level not in self._sizes:
            found: dict[str, int] = {}
            block_of = self.conditions.index.block_levels.get(level, {})
            for node in self.nodes:
                if node in block_of:
                    found[block_of[node]] = found.get(block_of[node], 0) + 1
            self._sizes[level] = found
        return self._sizes[level]

    def fits(self, job: Job) -> bool:
        """Whether the blocks hold a job when nothing else runs; always where it needs none."""
        if job.within is None:
            return True
        parts = parts_of(job, self.per_node)
        return parts is not None and parts.fit(self.sizes(job.within).values())

    def counted(self, jobs: Iterable[Job]) -> tuple[BlockSize, ...]:
        """Return the sizes to count per level: those of parts of waiting jobs at which blocks waste nodes."""
        work: dict[BlockSize, float] = {}
        for job in jobs:
            if job.within is None or job.state != "waiting" or not may_run_on(job, self.hall, self.kind):
                continue
            parts = parts_of(job, self.per_node)
            if parts is not None and parts.nodes > 1:
                key = job.within, parts.nodes
                work[key] = work.get(key, 0.0) + job.weight * job.gpus * job.duration_s
        wasteful = [key for key in work if self._held(*key) < len(self.nodes) // key[1]]
        wasteful.sort(key=lambda key: (-work[key], key))
        by_level: dict[str, list[BlockSize]] = {}
        for key in wasteful:
            by_level.setdefault(key[0], []).append(key)
        return tuple(sorted(key for keys in by_level.values() for key in keys[:_MOST_SIZES]))

    def _held(self, level: str, size: int) -> int:
        return sum(nodes // size for nodes in self.sizes(level).values())

    def capacity(self, level: str, size: int, jobs: Iterable[Job]) -> Ints:
        """Return per slot how many parts of a size the blocks hold beside the running jobs that are sure to go on."""
        s = self.conditions.snapshot
        names = {name: number for number, name in enumerate(self.sizes(level))}
        block_of = self.conditions.index.block_levels[level]
        free = np.tile(np.array(list(self.sizes(level).values()), np.int64)[:, None], s.slots)
        open_until = dict.fromkeys(self.nodes, 0)
        here = (job for job in jobs if job.state == "running" and may_run_at(job, s.site.name))
        for job in here:
            if job.nodes and job.hall == self.hall and not job.preemptible:
                for node in expand(job.nodes):
                    if node in open_until:
                        open_until[node] = max(open_until[node], self._runs_until(job))
        for node, until in open_until.items():
            if until and node in block_of:
                free[names[block_of[node]], :until] -= 1
        result: Ints = (free // size).sum(axis=0)
        return result

    def _runs_until(self, job: Job) -> int:
        """Return the slot in which a running job ends in its mode of now."""
        s = self.conditions.snapshot
        kind = s.site.node_types[running_type(s.site, job) or self.kind]
        mode = kind.find_mode(job.mode)
        speed = 1.0 if mode is None else gpu_speed(mode, s.site.job_classes.get(job.job_class))
        return min(s.slots, max(1, int(-(-job.duration_s // (speed * s.slot_s)))))


def block_uses(parts: Parts, level: str, resources: Mapping[BlockSize, int]) -> dict[int, int]:
    """Return what a job with these parts uses of the resources that count blocks: whole sizes in all parts."""
    amounts = {number: parts.count * (parts.nodes // size) for (of, size), number in resources.items() if of == level}
    return {number: amount for number, amount in amounts.items() if amount}
