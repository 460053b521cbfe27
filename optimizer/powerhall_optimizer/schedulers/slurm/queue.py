"""Slurm's queue as the planner's jobs and nodes.

Every job that has nodes is among the jobs: with its hall, type and mode where a plan can have it, without a hall where
it is only counted.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgspec

from powerhall.hostlist import compress, expand
from powerhall.jobs.model import Job
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.base import Queue
from powerhall_optimizer.schedulers.skip_reasons import LeftOut, LeftOutCause
from powerhall_optimizer.schedulers.slurm.allocations import (
    allocation,
    gpus_somewhere,
    has_nodes,
    is_host_list,
    running_place,
    taken_whole,
)
from powerhall_optimizer.schedulers.slurm.array_limits import ArrayLimits
from powerhall_optimizer.schedulers.slurm.cluster import PlacementRules
from powerhall_optimizer.schedulers.slurm.eligibility import Candidates, left_to_slurm
from powerhall_optimizer.schedulers.slurm.gpu_parts import UsedParts, asked_shares, running_share
from powerhall_optimizer.schedulers.slurm.ownership_mark import OwnershipMark, one_word, parse_mark
from powerhall_optimizer.schedulers.slurm.records import NodeRecord, Record
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings

__all__ = ["to_queue"]

_CLOSED = {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "INVAL", "NOT_RESPONDING", "MAINT"}
_CLOSED |= {"MAINTENANCE", "UNKNOWN", "FUTURE", "INVALID_REG", "BLOCKED", "REBOOT_ISSUED", "REBOOT_REQUESTED"}
_CLOSED |= {"INVALID", "NO_RESPOND", "REBOOT", "DYNAMIC_FUTURE", "POWER_DRAIN"}
_OFF = {"POWERED_DOWN"}
_POWERING = {"POWERING_UP", "POWER_UP"}


def _duration_s(record: Record, settings: SlurmSettings, now_s: float) -> float:
    """Return how long a job still runs at most; one beyond its limit, or without one, may run on."""
    limit_s, default_s = record.time_limit_s, settings.fields.default_duration_s
    if not has_nodes(record):
        return float(limit_s or default_s)
    left_s = -1.0 if limit_s is None else limit_s - (now_s - record.start_s)
    return max(60.0, left_s) if left_s > 0 else default_s


class _Reader:
    """Makes jobs of records."""

    def __init__(self, nodes: Sequence[NodeRecord], site: Site, settings: SlurmSettings, now_s: float) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.site, self.settings, self.now_s = site, settings, now_s
        self.index = SiteIndex.of(site)
        self.used_parts = UsedParts()
        self.arrays = ArrayLimits(now_s)

    def running(self, record: Record) -> tuple[Job | None, LeftOut | None]:
        """Return a job that has nodes, and why no plan can have it."""
        why: LeftOut | None
        mark = parse_mark(record.admin_comment) or OwnershipMark()
        if record.gpus == 0 and not record.is_part:
            return None, LeftOut(LeftOutCause.NO_GPUS, "GPU")
        if not is_host_list(record.nodes):
            why = LeftOut(LeftOutCause.UNKNOWN_NODES, value=record.nodes[:80] or "none")
            return self._somewhere(record), why
        if (part := self._running_part(record, mark)) is not None:
            return part, None
        found = allocation(record, self.nodes, self.index, self.used_parts)
        if found is None:
            return None, LeftOut(LeftOutCause.FOREIGN_NODES, self.site.name, record.nodes[:80] or "no node")
        place = running_place(found, self.index)
        why = None
        if record.is_part:
            place, why = None, LeftOut(LeftOutCause.PART_OF_GPU)
        elif found.foreign:
            place, why = None, LeftOut(LeftOutCause.FOREIGN_NODES, self.site.name, record.nodes[:80])
        elif not record.is_named:
            place, why = None, LeftOut(LeftOutCause.NO_ID, value=record.job_id)
        elif place is None:
            why = LeftOut(LeftOutCause.SEVERAL_POOLS, value=record.nodes[:80])
        spread = dict(zip(found.nodes, found.gpus, strict=True)) if found.is_known else {}
        is_unknown = not spread and (record.is_part or found.foreign)
        total = sum(found.gpus) if spread or is_unknown else record.gpus
        if spread and not total:
            return None, why  # its parts are on GPUs that are counted already
        hall = node_type = mode = None
        if place is not None:
            hall, kind = place
            node_type = kind.name
            modes = {one_word(each.name): each.name for each in kind.modes}
            highest = max(kind.modes, key=lambda each: each.gpu_power_w)
            mode = modes.get(mark.mode, highest.name)
        nodes = record.nodes if not found.foreign else compress(found.nodes)
        gpus = tuple(spread[node] for node in expand(nodes)) if spread else ()
        return Job(
            record.job_id,
            max(1, total),
            _duration_s(record, self.settings, self.now_s),
            submit_s=float(record.submit_s),
            job_class=record.partition or "default",
            weight=self._weight(record),
            preemptible=place is not None and self._preemptible(record),
            checkpoint_cost_s=self.settings.fields.checkpoint_cost_s,
            state="running",
            hall=hall,
            node_type=node_type,
            mode=mode,
            nodes=nodes,
            start_s=float(record.start_s),
            gpus_on_nodes=() if place is not None and len(set(gpus)) == 1 else gpus,
        ), why

    def _somewhere(self, record: Record) -> Job:
        """Return a job whose nodes are not known, as the GPUs that it may have."""
        gpus = max(1, gpus_somewhere(record, self.index))
        return Job(
            record.job_id,
            gpus,
            _duration_s(record, self.settings, self.now_s),
            submit_s=float(record.submit_s),
            state="running",
            nodes="",
            start_s=float(record.start_s),
        )

    def _running_part(self, record: Record, mark: OwnershipMark) -> Job | None:
        """Return a job that runs on a part of one GPU of a node type that offers such parts."""
        if not (record.is_part and record.is_named) or record.nodes not in self.index.rack_of:
            return None
        kind = self.site.node_types[self.index.rack_of[record.nodes].node_type]
        found = running_share(record, self.nodes.get(record.nodes), kind, self.used_parts)
        if found is None or found[0] == 1:
            return None
        modes = {one_word(each.name): each.name for each in kind.modes}
        return Job(
            record.job_id,
            1,
            _duration_s(record, self.settings, self.now_s),
            submit_s=float(record.submit_s),
            job_class=record.partition or "default",
            weight=self._weight(record),
            preemptible=self._preemptible(record),
            checkpoint_cost_s=self.settings.fields.checkpoint_cost_s,
            state="running",
            hall=self.index.hall_of(record.nodes).zone,
            node_type=kind.name,
            mode=modes.get(mark.mode, max(kind.modes, key=lambda each: each.gpu_power_w).name),
            nodes=record.nodes,
            start_s=float(record.start_s),
            gpu_share=str(found[0]),
            gpu_number=found[1],
        )

    def _part(self, record: Record, allowed: frozenset[str]) -> tuple[frozenset[str], str | None] | LeftOut:
        """Return the nodes that offer the part of a GPU that a job asks for, and its share (None: all of one)."""
        kinds = {node: self.site.node_types[self.index.rack_of[node].node_type] for node in allowed}
        shares = asked_shares(record, allowed, self.nodes, kinds)
        if len(shares) != 1:
            return LeftOut(LeftOutCause.PART_OF_GPU if not shares else LeftOutCause.SEVERAL_SHARES)
        share, nodes = next(iter(shares.items()))
        return frozenset(nodes), None if share == 1 else str(share)

    def waiting(self, record: Record, candidates: Candidates) -> Job | LeftOut:
        """Return a waiting job with the nodes on which it may start, or why it is left to Slurm."""
        fields = self.settings.fields
        duration_s = _duration_s(record, self.settings, self.now_s)
        record = replace(record, is_exclusive=candidates.is_whole(record))
        allowed = candidates.of(record, math.inf if record.time_limit_s is None else duration_s)
        if isinstance(allowed, LeftOut):
            return allowed
        share: str | None = None
        if record.is_part:
            part = self._part(record, allowed)
            if isinstance(part, LeftOut):
                return part
            allowed, share = part
        kinds = {self.site.node_types[self.index.rack_of[node].node_type] for node in allowed}
        mapped = fields.node_types.get(record.gpu_type)
        kinds = {kind for kind in kinds if mapped in (None, kind.name)} or kinds
        size = max(kind.gpus for kind in kinds)
        gpus = (
            record.min_nodes * size
            if record.is_exclusive
            else 1
            if record.is_part
            else self._most_gpus(record, allowed)
        )
        is_fixed = record.is_per_node or record.max_nodes > 0 or record.is_exclusive
        if is_fixed and -(-gpus // size) != record.node_count:
            return LeftOut(LeftOutCause.SPREAD, value=f"{gpus} GPUs on {record.node_count} nodes")
        if record.is_exclusive and len({kind.gpus for kind in kinds}) > 1:
            return LeftOut(LeftOutCause.SPREAD, value="whole nodes of several sizes")
        within = self._smallest_blocks() if record.segment_nodes else None
        if record.segment_nodes and within is None:
            value = f"segments of {record.segment_nodes} nodes, and the site file names no blocks"
            return LeftOut(LeftOutCause.SPREAD, value=value)
        mark = parse_mark(record.admin_comment) or OwnershipMark(begin_s=record.begin_s)
        begin_s = float(mark.begin_s) if mark.begin_s > self.now_s else None
        times = [at_s for at_s in (begin_s, self.arrays.earliest_s(record, duration_s)) if at_s is not None]
        is_anywhere = allowed >= self._usable(mapped)
        return Job(
            record.job_id,
            gpus,
            duration_s,
            submit_s=float(record.submit_s),
            job_class=record.partition or "default",
            weight=self._weight(record),
            node_types=(mapped,) if mapped else () if is_anywhere else tuple(sorted(kind.name for kind in kinds)),
            earliest_s=max(times) if times else None,
            deadline_s=float(record.deadline_s) if record.deadline_s else None,
            preemptible=self._preemptible(record),
            checkpoint_cost_s=fields.checkpoint_cost_s,
            halls=() if is_anywhere else tuple(sorted({self.index.hall_of(node).zone for node in allowed})),
            allowed_nodes=None if is_anywhere else compress(sorted(allowed)),
            gpu_share=share,
            within=within,
            block_nodes=record.segment_nodes or None,
        )

    def _most_gpus(self, record: Record, allowed: Iterable[str]) -> int:
        """Return the GPUs that a job may get: per socket those of all sockets of the nodes, however few it asks for."""
        sockets = max((self.nodes[node].sockets for node in allowed if node in self.nodes), default=0)
        return max(record.gpus, record.socket_gpus * sockets * record.node_count)

    def _smallest_blocks(self) -> str | None:
        """Return the level of the site's smallest blocks, which are Slurm's; None where the site file names none."""
        levels = [level for level in self.site.levels if level.blocks]
        smallest = min(levels, key=lambda level: max(len(expand(block.nodes)) for block in level.blocks), default=None)
        return None if smallest is None else smallest.name

    def _usable(self, mapped: str | None) -> set[str]:
        """Return all nodes of a type, or of all."""
        return {node for node, rack in self.index.rack_of.items() if mapped in (None, rack.node_type)}

    def _weight(self, record: Record) -> float:
        weights = self.settings.fields.weights
        return weights.get(record.qos, weights.get(record.partition, 1.0))

    def _preemptible(self, record: Record) -> bool:
        return record.requeue and bool({record.qos, record.partition} & set(self.settings.fields.preemptible))


def _owned(job: Job, record: Record) -> Job:
    """Return the job with its account as the project that pays, and its number where it runs as a task of an array."""
    number = str(record.number) if job.state == "running" and record.number else job.job_id
    billed_as = None if number == job.job_id else number
    return msgspec.structs.replace(job, project=record.account or None, billed_as=billed_as)


def to_queue(
    records: Sequence[Record],
    nodes: Sequence[NodeRecord],
    site: Site,
    settings: SlurmSettings,
    now_s: float,
    *,
    rules: PlacementRules | None = None,
) -> Queue:
    """Return the jobs that run or may be planned, others with the reason, and nodes that take nothing new or are off.

    A node of the site that Slurm does not know takes nothing new, nor does one that a job with fewer GPUs has whole.
    """
    reader = _Reader(nodes, site, settings, now_s)
    candidates = Candidates(nodes, reader.index, rules or PlacementRules(), now_s)
    jobs: list[Job] = []
    left_out: dict[str, str] = {}
    for record in (record for record in records if has_nodes(record)):
        reader.arrays.runs(record, _duration_s(record, settings, now_s))
    for record in records:
        why: LeftOut | None = None
        if has_nodes(record):
            job, why = reader.running(record)
            jobs += [] if job is None else [_owned(job, record)]
        elif record.state == "PENDING":
            unnamed = None if record.is_named else LeftOut(LeftOutCause.NO_ID, value=record.job_id)
            made = unnamed or left_to_slurm(record) or reader.waiting(record, candidates)
            if isinstance(made, Job):
                jobs.append(_owned(made, record))
            else:
                why = made
        if why is not None:
            left_out[record.job_id] = texts.left_out_text(why)
    seen, taken = reader.nodes, taken_whole(records, reader.index)
    off = {n.name for n in nodes if n.states & _OFF and not n.states & _POWERING and n.states & _CLOSED}
    off -= taken
    closed = {n for n in reader.index.rack_of if n in taken or n not in seen or seen[n].states & _CLOSED}
    down = [n for n in reader.index.rack_of if n in closed and n not in off]
    return Queue(int(now_s), tuple(jobs), tuple(down), left_out, tuple(sorted(off & reader.index.rack_of.keys())))
