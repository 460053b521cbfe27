"""Parts of GPUs for the checker: what a job's share takes of a GPU, and who has the GPU that jobs share.

A GPU that jobs share is counted whole, by the one that has it (the host), from its start to its end; a guest counts
nothing. That holds the power only if each guest is on the GPU of its host, in its mode, while the host runs, and all
shares on it together are one GPU at most. Nothing here is shared with the planner.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import msgspec

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.plan.plan import Assignment
from powerhall.site.topology import NodeType
from powerhall_optimizer.verify.case import Check, PlanCase, Violation
from powerhall_optimizer.verify.loads import slot_span

__all__ = ["SHARE_CHECKS", "counted_gpus", "has_parts", "hosts_alone", "parts_of", "share"]


def share(job: Job) -> Fraction | None:
    """Return the share of a GPU that a job asks for, None for whole GPUs; ValueError where it is no such share."""
    if job.gpu_share is None:
        return None
    text = job.gpu_share
    try:
        found = Fraction(text[:-1]) / 100 if text.endswith("%") else Fraction(text)
    except ZeroDivisionError:
        raise ValueError(text) from None
    if not 0 < found <= 1:
        raise ValueError(text)
    return found


def counted_gpus(job: Job) -> float:
    """Return the GPUs that count in value and energy."""
    part = share(job)
    return float(job.gpus) if part is None else float(part)


def parts_of(part: Fraction, kind: NodeType) -> int:
    """Return the parts of a GPU of this type that a share takes."""
    whole, rest = divmod(part * kind.gpu_parts, 1)
    return int(whole) + (rest > 0)


def has_parts(job: Job, kind: NodeType) -> bool:
    """Whether nodes of this type give what a waiting job asks for; all parts of a GPU stand for a shared one."""
    part = share(job)
    if part is None:
        return not kind.mig
    return kind.gpu_parts > 1 and (part == 1 or not kind.mig or parts_of(part, kind) == 1)


def hosts_alone(jobs: Iterable[Job]) -> list[Job]:
    """Return the running jobs with those on one GPU as one: the host, worth as much as all, stopped where all may be.

    The order in which running jobs are kept goes by it.
    """
    jobs = list(jobs)
    on: dict[tuple[str | None, int | None], list[Job]] = {}
    for job in jobs:
        if job.gpu_share is not None and job.gpu_number is not None:
            on.setdefault((job.nodes, job.gpu_number), []).append(job)
    found: list[Job] = []
    for job in jobs:
        members = on.get((job.nodes, job.gpu_number), [job]) if job.gpu_share is not None else []
        if job.gpus > 0:
            found.append(_for_all(job, members) if members else job)
    return found


def _for_all(host: Job, members: Sequence[Job]) -> Job:
    worth = sum(job.weight * float(share(job) or 0) * job.duration_s for job in members)
    stops = all(job.preemptible for job in members)
    return msgspec.structs.replace(host, weight=worth / host.duration_s, preemptible=stops)


def _offered(case: PlanCase) -> Iterator[Violation]:
    """A job that starts has its share, or whole GPUs, on a type that gives them."""
    for job, entry in case.pairs:
        kind, _ = case.kind_mode(entry)
        if kind is not None and job.state == "waiting" and not has_parts(job, kind):
            what = "whole GPUs" if job.gpu_share is None else f"{job.gpu_share} of a GPU"
            yield Violation("eligibility", job.job_id, f"asks for {what}, which {kind.name} does not give")


def _guests(case: PlanCase) -> Iterator[Violation]:
    """Every guest is on the GPU of a job that has one, in its mode, and not before or after it."""
    entries = {entry.job_id: (job, entry) for job, entry in case.pairs}
    for job, entry in case.pairs:
        if not entry.beside:
            if job.gpus == 0:
                yield Violation("share", job.job_id, "has no GPU of its own, and is beside no job that has one")
            continue
        host = entries.get(entry.beside)
        if host is None or host[1].beside or host[0].gpu_share is None or job.gpu_share is None:
            text = f"is beside {entry.beside}, which does not have a GPU in parts with it"
            yield Violation("share", job.job_id, text)
        elif wrong := next(_apart(job, entry, *host), None):
            yield Violation("share", job.job_id, f"{wrong} {entry.beside}, whose GPU it shares")


def _apart(job: Job, entry: Assignment, host: Job, having: Assignment) -> Iterator[str]:
    if entry.gpus or any(placement.gpus_per_node for placement in entry.placements):
        yield "counts GPUs of its own beside"
    if (entry.hall, entry.node_type, entry.mode) != (having.hall, having.node_type, having.mode):
        yield "is in another place or mode than"
    if _nodes(entry) != _nodes(having) or len(_nodes(entry)) != 1:
        yield "is on other nodes than"
    if entry.start_s < having.start_s or entry.end_s > having.end_s:
        yield "runs before or after"
    if entry.gpu_power_w > having.gpu_power_w * (1 + 1e-9):
        yield "draws more than"
    if job.state == "running" and (
        job.gpu_number is None or job.gpu_number != host.gpu_number or host.state != job.state
    ):
        yield "runs on another GPU than"


def _nodes(entry: Assignment) -> list[str]:
    return sorted(name for placement in entry.placements for name in expand(placement.nodes))


def _full(case: PlanCase) -> Iterator[Violation]:
    """The parts on a GPU are no more than it has, at any time."""
    taken: dict[str, list[tuple[int, int]]] = {}
    room: dict[str, int] = {}
    for job, entry in case.pairs:
        kind, part = case.kind_mode(entry)[0], share(job)
        if kind is None or part is None:
            continue
        first, last = slot_span(case.snapshot, entry)
        parts, host = parts_of(part, kind), entry.beside or job.job_id
        taken.setdefault(host, []).extend(((first, parts), (last, -parts)))
        room[host] = kind.gpu_parts
    for host, changes in taken.items():
        used = 0
        for slot, change in sorted(changes):
            used += change
            if used > room[host]:
                text = f"its GPU is shared in {used} parts at {case.when(slot)}; it has {room[host]}"
                yield Violation("share", host, text)
                break


def _spread(case: PlanCase) -> Iterator[Violation]:
    """Where parts are not filled into one GPU after the other, one that starts may get a GPU that nobody counts."""
    for job, entry in case.pairs:
        kind, _ = case.kind_mode(entry)
        if entry.beside and job.state == "waiting" and kind is not None and not kind.gpu_fill:
            yield Violation("share", job.job_id, f"starts beside {entry.beside}, but may get a GPU of its own")


SHARE_CHECKS: tuple[Check, ...] = (_offered, _guests, _full, _spread)
