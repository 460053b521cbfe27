"""Jobs that run on parts of GPUs: which of them share a GPU, so that each GPU and its power count once.

Of the jobs on one GPU (`gpu_number` of their node) the one that runs longest has the GPU, the others have 0 `gpus`. A
job that does not say its GPU gets one of its own while the node has GPUs left, those that run longest first: that is
the most power at any time.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.jobs.left_out import LeftOut, LeftOutCode, left_out_job
from powerhall.jobs.model import node_gpus
from powerhall.plan.gpu_parts import gpu_parts, share_of
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import NodeType, Site

__all__ = ["seated", "without_host", "without_parts"]

_Gpu = tuple[str, int]
"""A node and the number of a GPU on it."""
_MIXED = "shares a GPU with jobs of another class or mode, or beyond its parts: counted, not planned"
_SEVERAL = "takes a part of a GPU; with several sites whole GPUs are planned alone"
_NO_HOST = "shares a GPU with a job that is counted, not planned"


def seated(jobs: Sequence[Job], site: Site) -> tuple[tuple[Job, ...], tuple[LeftOut, ...]]:
    """Return the jobs with the GPU of each part, and those that share one in a way that no plan can have."""
    kinds = {node: site.node_types[rack.node_type] for node, rack in SiteIndex.of(site).rack_of.items()}
    parts = [job for job in jobs if _is_part(job) and job.nodes in kinds]
    if not parts:
        return tuple(jobs), ()
    seats: dict[str, Job] = {}
    left_out: dict[str, LeftOut] = {}
    for (node, number), members in _by_gpu(parts, jobs, kinds).items():
        host = max(members, key=lambda job: (job.duration_s, job.job_id))
        for job in members:
            seat = msgspec.structs.replace(job, gpus=int(job is host), gpu_number=number, gpus_on_nodes=())
            if _fit_together(members, kinds[node]):
                seats[job.job_id] = seat
            else:
                left_out[job.job_id] = _counted(seat, _MIXED)
    kept = tuple(seats.get(job.job_id, job) for job in jobs if job.job_id not in left_out)
    return kept, tuple(left_out.values())


def without_host(jobs: Sequence[Job]) -> tuple[tuple[Job, ...], tuple[LeftOut, ...]]:
    """Return the jobs, and apart from them those that share a GPU which no job among them has."""
    had = {(job.nodes, job.gpu_number) for job in jobs if _is_part(job) and job.gpus > 0}
    lost = {job.job_id for job in jobs if _is_part(job) and job.gpus == 0 and (job.nodes, job.gpu_number) not in had}
    kept = tuple(job for job in jobs if job.job_id not in lost)
    return kept, tuple(_counted(job, _NO_HOST) for job in jobs if job.job_id in lost)


def without_parts(jobs: Sequence[Job], sites: Sequence[Site]) -> tuple[tuple[Job, ...], tuple[LeftOut, ...]]:
    """Return the jobs of whole GPUs for a plan of several sites, and those of parts, which run or wait beside it."""
    left_out: list[LeftOut] = []
    for site in sites:
        rack_of = SiteIndex.of(site).rack_of
        own = [job for job in jobs if not _is_part(job) or job.nodes in rack_of]
        kept, mixed = seated(own, site)
        left_out += [*mixed, *(_counted(job, _SEVERAL) for job in kept if _is_part(job))]
    known = {entry.job_id for entry in left_out}
    for job in jobs:
        if job.gpu_share is not None and job.job_id not in known:
            left_out.append(left_out_job(job, LeftOutCode.PLACE, Rejected(_SEVERAL), ""))
    return tuple(job for job in jobs if job.gpu_share is None), tuple(left_out)


def _is_part(job: Job) -> bool:
    return job.state == "running" and job.gpu_share is not None


def _by_gpu(parts: Sequence[Job], jobs: Iterable[Job], kinds: Mapping[str, NodeType]) -> dict[_Gpu, list[Job]]:
    """Return the parts on each GPU."""
    whole: dict[str, int] = {}
    for job in jobs:
        for node, gpus in node_gpus(job).items() if job.state == "running" and not _is_part(job) else ():
            whole[node] = whole.get(node, 0) + gpus
    found: dict[_Gpu, list[Job]] = {}
    for job in sorted(parts, key=lambda job: (job.gpu_number is None, -job.duration_s, job.job_id)):
        node = expand(job.nodes or "")[0]
        number = job.gpu_number
        if number is None:
            number = _own_number(job, node, found, kinds[node], whole.get(node, 0))
        found.setdefault((node, number), []).append(job)
    return found


def _own_number(job: Job, node: str, found: Mapping[_Gpu, Sequence[Job]], kind: NodeType, whole: int) -> int:
    """Return a GPU of the node that no other part is on while there is one, else the first with room for the job.

    Where GPUs are not filled one after the other, more parts than GPUs are counted as a full node (`observed_nodes`).
    """
    numbers = {number for other, number in found if other == node}
    free = next(number for number in range(len(numbers) + 1) if number not in numbers)
    if whole + len(numbers) < kind.gpus or not kind.gpu_fill:
        return free
    return next((number for number in sorted(numbers) if _fit_together([*found[node, number], job], kind)), free)


def _fit_together(members: Sequence[Job], kind: NodeType) -> bool:
    """Whether jobs may be planned on one GPU: of one class, in one mode, within its parts."""
    ways = {(job.job_class, job.mode, job.hall, job.node_type) for job in members}
    shares = [share for job in members if (share := share_of(job)) is not None]
    return len(ways) == 1 and sum(gpu_parts(share, kind) for share in shares) <= kind.gpu_parts


def _counted(job: Job, reason: str) -> LeftOut:
    place = job.hall, job.nodes, (job.gpus,)
    return LeftOut(job.job_id, LeftOutCode.COUNTED, reason, True, job.gpus, *place, job.project, job.tenant)
