"""Slurm's queue as the planner's jobs and nodes."""

from collections.abc import Sequence

from powerhall.hostlist import expand
from powerhall.jobs.model import Job
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.base import Queue
from powerhall_optimizer.schedulers.skip_reasons import LeftOut, LeftOutCause
from powerhall_optimizer.schedulers.slurm.ownership_mark import OwnershipMark, one_word, parse_mark
from powerhall_optimizer.schedulers.slurm.records import NodeRecord, Record
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings

__all__ = ["to_queue"]

_UNUSABLE = {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "INVAL", "NOT_RESPONDING", "MAINT"}
_UNUSABLE |= {"MAINTENANCE", "UNKNOWN", "FUTURE", "INVALID_REG"}
_NOT_ELIGIBLE = {
    "Dependency": LeftOutCause.DEPENDENCY,
    "DependencyNeverSatisfied": LeftOutCause.DEPENDENCY_FAILED,
}
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "CONFIGURING"}


def _left_out(record: Record) -> LeftOut | None:
    """Return why the planner cannot place a waiting job; None where it can."""
    mark = parse_mark(record.admin_comment)
    if record.gpus == 0:
        return LeftOut(LeftOutCause.NO_GPUS, "GPU")
    if record.is_het:
        return LeftOut(LeftOutCause.HETEROGENEOUS)
    if record.is_held and not (mark and mark.values.get("hold") == "1"):
        return LeftOut(LeftOutCause.HELD_BY_USER if record.reason == "JobHeldUser" else LeftOutCause.HELD_BY_ADMIN)
    cause = _NOT_ELIGIBLE.get(record.reason)
    return None if cause is None else LeftOut(cause)


def _duration_s(record: Record, settings: SlurmSettings, now_s: float) -> float:
    limit_s = float(record.time_limit_s or settings.fields.default_duration_s)
    if record.state in _RUNNING:
        return max(60.0, limit_s - (now_s - record.start_s))
    return limit_s


def _job(record: Record, settings: SlurmSettings, now_s: float, index: SiteIndex) -> Job | LeftOut:
    fields = settings.fields
    mark = parse_mark(record.admin_comment) or OwnershipMark(begin_s=record.begin_s)
    common = {
        "job_class": record.partition or "default",
        "weight": fields.weights.get(record.qos, fields.weights.get(record.partition, 1.0)),
        "preemptible": record.requeue and bool({record.qos, record.partition} & set(fields.preemptible)),
        "checkpoint_cost_s": fields.checkpoint_cost_s,
        "submit_s": float(record.submit_s),
    }
    duration_s = _duration_s(record, settings, now_s)
    if record.state == "PENDING":
        kind = fields.node_types.get(record.gpu_type)
        earliest_s = float(mark.begin_s) if mark.begin_s > now_s else None
        types = (kind,) if kind else ()
        return Job(record.job_id, record.gpus, duration_s, node_types=types, earliest_s=earliest_s, **common)  # type: ignore[arg-type]
    names = expand(record.nodes)
    known = [index.rack_of[name] for name in names if name in index.rack_of]
    if not names or len(known) != len(names):
        return LeftOut(LeftOutCause.FOREIGN_NODES, index.site.name, record.nodes or "no node")
    halls = {index.hall_of_rack[rack.zone].zone for rack in known}
    if len(halls) > 1 or len({rack.node_type for rack in known}) > 1:
        return LeftOut(LeftOutCause.SEVERAL_POOLS, value=record.nodes)
    kind_of = index.rack_type(known[0])
    modes = {one_word(mode.name): mode.name for mode in kind_of.modes}
    return Job(
        record.job_id,
        record.gpus,
        duration_s,
        state="running",
        hall=halls.pop(),
        node_type=kind_of.name,
        mode=modes.get(mark.mode, kind_of.modes[0].name),
        nodes=record.nodes,
        start_s=float(record.start_s),
        **common,  # type: ignore[arg-type]
    )


def to_queue(
    records: Sequence[Record], nodes: Sequence[NodeRecord], site: Site, settings: SlurmSettings, now_s: float
) -> Queue:
    """Return the jobs that may be planned, the others with the reason, and the site's unusable nodes."""
    index = SiteIndex.of(site)
    jobs: list[Job] = []
    left_out: dict[str, str] = {}
    for record in records:
        if record.state != "PENDING" and record.state not in _RUNNING:
            continue
        reason = _left_out(record)
        if record.state != "PENDING":
            reason = None if record.gpus else LeftOut(LeftOutCause.NO_GPUS, "GPU")
        made = reason or _job(record, settings, now_s, index)
        if isinstance(made, Job):
            jobs.append(made)
        else:
            left_out[record.job_id] = texts.left_out_text(made)
    seen = {node.name: node for node in nodes}
    down = [name for name in index.rack_of if name not in seen or seen[name].states & _UNUSABLE]
    return Queue(int(now_s), tuple(jobs), tuple(down), left_out)
