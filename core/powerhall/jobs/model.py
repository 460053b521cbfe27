"""A job of the queue, and the checks of every list of jobs, whatever its source."""

import math
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from powerhall.hostlist import expand
from powerhall.jobs.gpu_share import parse_share
from powerhall.runtime.errors import Rejected

__all__ = ["Job", "check_job", "check_jobs", "node_gpus"]


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One job: a gang of `gpus` GPUs of one node type in one hall, all at once or not at all.

    `duration_s` is the remaining work: seconds at the fastest mode's speed. `halls`, `node_types` and `sites` limit
    where it may run (empty: anywhere): a filter (data residency), not a preference. Times are seconds since the
    epoch. A job of a node's GPUs or fewer stays on one node; a larger one takes whole nodes.
    A running job has `state="running"`, with its hall, node type, mode, nodes (host list) and start, and its site where
    several sites are planned together. `gpus_on_nodes` are its GPUs on each of its nodes, in order; empty: the same
    number on each. One without a hall, on nodes that are not all in one hall and of one type, is counted in the power
    and not planned with. `allowed_nodes` (host list) are the only ones on which a waiting job may start.
    `within` names a level of blocks of the site, such as `nvlink_domain` or `rack`: all nodes of the job lie in one
    block; with `block_nodes` it is split into parts of that many nodes, each in one block.
    `gpu_share` asks for a part of one GPU ("1/7", "0.25") on a node type whose GPUs have parts; `gpus` is then 1. Jobs
    that run on one GPU have its number `gpu_number` on their node, and of these all but one have 0 `gpus`, so that the
    GPU and its power count once. `project` and `tenant` are those that pay for it; `billed_as` is its name in
    the agents' intervals where that is another, as with a task of a Slurm array.
    """

    job_id: str
    gpus: int
    duration_s: float
    submit_s: float = 0.0
    job_class: str = "default"
    weight: float = 1.0
    node_types: tuple[str, ...] = ()
    halls: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    earliest_s: float | None = None
    deadline_s: float | None = None
    preemptible: bool = False
    checkpoint_cost_s: float = 0.0
    state: Literal["waiting", "running"] = "waiting"
    hall: str | None = None
    node_type: str | None = None
    mode: str | None = None
    nodes: str | None = None
    start_s: float | None = None
    site: str | None = None
    gpus_on_nodes: tuple[int, ...] = ()
    allowed_nodes: str | None = None
    within: str | None = None
    block_nodes: int | None = None
    gpu_share: str | None = None
    gpu_number: int | None = None
    project: str | None = None
    tenant: str | None = None
    billed_as: str | None = None


def node_gpus(job: Job) -> dict[str, int]:
    """Return the GPUs of a running job on each of its nodes: as it says, otherwise spread evenly."""
    nodes = expand(job.nodes) if job.nodes else ()
    if len(job.gpus_on_nodes) == len(nodes):
        return dict(zip(nodes, job.gpus_on_nodes, strict=True))
    each, more = divmod(job.gpus, len(nodes)) if nodes else (0, 0)
    return {node: each + (i < more) for i, node in enumerate(nodes) if each + (i < more) > 0}


def check_jobs(jobs: Iterable[Job], source: str) -> tuple[Job, ...]:
    """Return the jobs if each is sound and no id repeats; otherwise raise Rejected naming source, job, field, value."""
    checked: list[Job] = []
    seen: set[str] = set()
    for job in jobs:
        check_job(job, source)
        if job.job_id in seen:
            raise Rejected.field(source, "job_id", job.job_id, "must be unique")
        seen.add(job.job_id)
        checked.append(job)
    return tuple(checked)


def check_job(job: Job, source: str) -> None:
    """Refuse a job with a value out of range, naming source, job and field."""

    def refuse(field: str, value: object, allowed: str) -> Rejected:
        return Rejected.field(source, f"job {job.job_id}: {field}", value, allowed)

    if not job.job_id or not job.job_id.isprintable():
        raise refuse("job_id", job.job_id, "must be printable text")
    _check_share(job, refuse)
    if job.gpus < 1 and not _is_guest(job):
        raise refuse("gpus", job.gpus, "must be at least 1")
    if not (math.isfinite(job.duration_s) and job.duration_s > 0):
        raise refuse("duration_s", job.duration_s, "must be a positive number of seconds")
    if not (math.isfinite(job.weight) and 0 < job.weight <= 1e6):
        raise refuse("weight", job.weight, "must be above 0 and at most 1000000")
    if not (math.isfinite(job.checkpoint_cost_s) and job.checkpoint_cost_s >= 0):
        raise refuse("checkpoint_cost_s", job.checkpoint_cost_s, "must not be negative")
    for field in ("submit_s", "earliest_s", "deadline_s", "start_s"):
        value = getattr(job, field)
        if value is not None and not math.isfinite(value):
            raise refuse(field, value, "must be seconds since the epoch")
    _check_nodes(job, refuse)
    _check_blocks(job, refuse)


def _is_guest(job: Job) -> bool:
    """Whether a job runs on a GPU that another job on it counts."""
    return job.gpus == 0 and job.state == "running" and job.gpu_share is not None and job.gpu_number is not None


def _check_share(job: Job, refuse: Callable[[str, object, str], Rejected]) -> None:
    if job.gpu_number is not None and (job.gpu_number < 0 or job.gpu_share is None):
        raise refuse("gpu_number", job.gpu_number, "must be 0 or more, and given only with gpu_share")
    if job.gpu_share is None:
        return
    try:
        if parse_share(job.gpu_share) == 1:
            raise refuse("gpu_share", job.gpu_share, "must be below 1: a whole GPU is gpus 1 without gpu_share")
    except ValueError as error:
        raise refuse("gpu_share", job.gpu_share, str(error)) from None
    if job.gpus > 1:
        raise refuse("gpus", job.gpus, "must be 1 beside gpu_share: a part of one GPU")
    if job.within is not None:
        raise refuse("within", job.within, "must not be given with gpu_share: a part of a GPU is on one node")
    try:
        is_one = job.nodes is None or job.hall is None or len(expand(job.nodes)) == 1
    except ValueError as error:
        raise refuse("nodes", job.nodes, str(error)) from None
    if not is_one:
        raise refuse("nodes", job.nodes, "must be one node beside gpu_share")


def _check_nodes(job: Job, refuse: Callable[[str, object, str], Rejected]) -> None:
    is_counted_only = job.hall is None and job.nodes is not None
    if job.state == "running" and not is_counted_only and None in (job.hall, job.mode, job.start_s):
        raise refuse("state", job.state, "a running job must give its hall, mode and start_s")
    if job.allowed_nodes is not None:
        try:
            expand(job.allowed_nodes)
        except ValueError as error:
            raise refuse("allowed_nodes", job.allowed_nodes, str(error)) from None
    if any(gpus < 0 for gpus in job.gpus_on_nodes) or (job.gpus_on_nodes and sum(job.gpus_on_nodes) != job.gpus):
        raise refuse("gpus_on_nodes", job.gpus_on_nodes, f"must be {job.gpus} GPUs in all")


def _check_blocks(job: Job, refuse: Callable[[str, object, str], Rejected]) -> None:
    if job.within is not None and not (job.within and job.within.isprintable()):
        raise refuse("within", job.within, "must name a level of blocks, such as nvlink_domain or rack")
    if job.block_nodes is not None and job.block_nodes < 1:
        raise refuse("block_nodes", job.block_nodes, "must be at least 1")
    if job.block_nodes is not None and job.within is None:
        raise refuse("block_nodes", job.block_nodes, "needs `within`, the level of the blocks that hold its parts")
