"""What runs on the nodes of a site, planned with or not: every running allocation is in the power of the snapshot.

* A running job that a plan can have keeps its nodes. Where it does not say how many of its GPUs are on each, and the
  same number on each is more than another job leaves, a split is searched that leaves every job its GPUs.
* Jobs on parts of one GPU use one GPU together (`seated_jobs`).
* GPUs of other running jobs are held: nobody else's, at the worst case of a GPU of their node's type.
* Where it is not known on which nodes of a job its GPUs are, or more run on a node than it has, its nodes draw their
  maximum and take nothing new. Where not even nodes are known, as many free ones as the GPUs need stand for them,
  those of the highest power first.
* A node on which something runs is not off.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec
import numpy as np

from powerhall.hostlist import compress, expand
from powerhall.jobs import Job
from powerhall.jobs.left_out import LeftOut, LeftOutCode
from powerhall.jobs.model import node_gpus
from powerhall.plan.plan import Held, Snapshot, gpu_power_w
from powerhall.site.index import SiteIndex
from powerhall.site.topology import NodeType, Rack, Site
from powerhall_optimizer.inputs.seated_jobs import seated, without_host

__all__ = ["busy_nodes", "observed_nodes", "worst_gpu_w"]


def worst_gpu_w(site: Site, kind: NodeType) -> float:
    """Return the most that one GPU may draw in W, whatever runs on it: its share of the node's maximum, or a mode's."""
    classes = (None, *site.job_classes.values())
    modes = (gpu_power_w(kind, mode, job_class) for mode in kind.modes for job_class in classes)
    return max(kind.max_power_w / kind.gpus, *modes)


def observed_nodes(snapshot: Snapshot, down: Collection[str], off: Collection[str]) -> Snapshot:
    """Return the snapshot with its nodes as they are observed; `down` and `off` may name nodes of other sites."""
    site = snapshot.site
    rack_of = SiteIndex.of(site).rack_of
    size = {node: site.node_types[rack.node_type].gpus for node, rack in rack_of.items()}
    jobs, mixed = seated(snapshot.jobs, site)
    jobs, overfull = _settled(jobs, size)
    jobs, alone = without_host(jobs)
    left_out = (*snapshot.left_out, *mixed, *overfull, *alone)
    free = dict(size)
    for job in jobs:
        for node, gpus in node_gpus(job).items() if job.state == "running" else ():
            free[node] = free.get(node, 0) - gpus
    held, worst = _held(site, left_out, free)
    named = {node for node, gpus in free.items() if gpus < size.get(node, 0)}
    worst |= dict.fromkeys(_stand_ins(site, left_out, named | worst.keys()))
    busy = named | worst.keys()
    closed = {node for node in {*down, *off} if node in rack_of}
    dark = {node for node in off if node in closed and node not in busy}
    return msgspec.structs.replace(
        snapshot,
        jobs=jobs,
        left_out=left_out,
        held=held,
        stale_nodes=tuple(worst),
        off_nodes=tuple(sorted(dark)),
        down_nodes=tuple(sorted(closed - dark)),
    )


def busy_nodes(snapshot: Snapshot) -> set[str]:
    """Return the nodes on which something runs."""
    jobs = (job.nodes for job in snapshot.jobs if job.state == "running")
    left_out = (entry.nodes for entry in snapshot.left_out if entry.running)
    return {node for nodes in (*jobs, *left_out) for node in _names(nodes)}


def _settled(jobs: Sequence[Job], size: Mapping[str, int]) -> tuple[tuple[Job, ...], tuple[LeftOut, ...]]:
    """Return the jobs with splits of their GPUs that fit together, and those for which there is none."""
    used: dict[str, int] = {}
    for job in jobs:
        for node, gpus in node_gpus(job).items() if job.state == "running" else ():
            used[node] = used.get(node, 0) + gpus
    full = {node for node, gpus in used.items() if gpus > size.get(node, 0)}
    if not full:
        return tuple(jobs), ()
    running = [job for job in jobs if job.state == "running" and job.nodes]
    loose = [job for job in running if _is_loose(job, size)]
    left = {node: size.get(node, 0) for node in used}
    overfull: dict[str, LeftOut] = {}
    for job in sorted(running, key=lambda job: (job.start_s or 0.0, job.job_id)):
        if job in loose:
            continue
        if any(left[node] < gpus for node, gpus in node_gpus(job).items()):
            overfull[job.job_id] = _overfull(job)
            continue
        for node, gpus in node_gpus(job).items():
            left[node] -= gpus
    splits = _splits(loose, left)
    overfull |= {job.job_id: _overfull(job) for job in loose if job.job_id not in splits}
    kept = (
        msgspec.structs.replace(job, gpus_on_nodes=splits[job.job_id]) if job.job_id in splits else job
        for job in jobs
        if job.job_id not in overfull
    )
    return tuple(kept), tuple(overfull.values())


def _is_loose(job: Job, size: Mapping[str, int]) -> bool:
    """Whether the GPUs of a job may be split over its nodes in several ways."""
    nodes = _names(job.nodes)
    return not job.gpus_on_nodes and len(nodes) > 1 and job.gpus < sum(size.get(node, 0) for node in nodes)


def _overfull(job: Job) -> LeftOut:
    reason = f"runs on {job.nodes} beside others on more GPUs than its nodes have: counted, not planned"
    place = job.hall, job.nodes, ()
    return LeftOut(job.job_id, LeftOutCode.COUNTED, reason, True, job.gpus, *place, job.project, job.tenant)


def _splits(jobs: Sequence[Job], left: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return GPUs per node of each job, within what is left of the nodes, by a maximum flow; none where some lack."""
    if not jobs:
        return {}
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_flow

    names = list(dict.fromkeys(node for job in jobs for node in _names(job.nodes)))
    index = {node: 1 + len(jobs) + i for i, node in enumerate(names)}
    sink = 1 + len(jobs) + len(names)
    arcs: list[tuple[int, int, int]] = [(index[node], sink, max(0, left[node])) for node in names]
    for number, job in enumerate(jobs, 1):
        arcs.append((0, number, job.gpus))
        arcs += [(number, index[node], job.gpus) for node in _names(job.nodes)]
    begin, end, most = np.array(arcs, np.int32).T
    flow = maximum_flow(csr_matrix((most, (begin, end)), shape=(sink + 1, sink + 1)), 0, sink).flow.tocsr()
    found: dict[str, tuple[int, ...]] = {}
    for number, job in enumerate(jobs, 1):
        gpus = tuple(int(flow[number, index[node]]) for node in _names(job.nodes))
        if sum(gpus) == job.gpus:
            found[job.job_id] = gpus
    return found


def _held(site: Site, left_out: Iterable[LeftOut], free: dict[str, int]) -> tuple[tuple[Held, ...], dict[str, None]]:
    """Return what running jobs outside the plan hold, and nodes at their maximum; takes the GPUs from the free ones."""
    rack_of = SiteIndex.of(site).rack_of
    held: list[Held] = []
    worst: dict[str, None] = {}
    for entry in left_out:
        known = [node for node in _names(entry.nodes) if node in rack_of] if entry.running else []
        split = _known_split(entry, known, free)
        if split is None:
            worst.update(dict.fromkeys(known))
            continue
        groups: dict[tuple[str, int], list[str]] = {}
        for node, gpus in split.items():
            free[node] -= gpus
            if gpus:
                groups.setdefault((rack_of[node].node_type, gpus), []).append(node)
        for (kind, gpus), nodes in groups.items():
            held.append(Held(entry.job_id, compress(nodes), gpus, worst_gpu_w(site, site.node_types[kind])))
    return tuple(held), worst


def _known_split(entry: LeftOut, known: Sequence[str], free: Mapping[str, int]) -> dict[str, int] | None:
    """Return the GPUs of a job on each of its known nodes; None where they are not known, or more than are free."""
    nodes = _names(entry.nodes)
    if entry.gpus_on_nodes and len(entry.gpus_on_nodes) == len(nodes):
        split = {node: gpus for node, gpus in zip(nodes, entry.gpus_on_nodes, strict=True) if node in known}
    elif len(nodes) == 1 and known and entry.gpus:
        split = {known[0]: entry.gpus}
    else:
        return None if known else {}
    return split if all(0 <= gpus <= free[node] for node, gpus in split.items()) else None


def _stand_ins(site: Site, left_out: Iterable[LeftOut], taken: set[str]) -> Iterator[str]:
    """Yield free nodes for running jobs whose nodes are not known, those of most power first."""
    rack_of = SiteIndex.of(site).rack_of
    taken = set(taken)
    for entry in left_out:
        if not entry.running or any(node in rack_of for node in _names(entry.nodes)):
            continue
        need = max(1, entry.gpus)
        for node, gpus in _by_power(site, entry.hall):
            if need <= 0:
                break
            if node not in taken:
                taken.add(node)
                need -= gpus
                yield node


def _by_power(site: Site, hall: str | None) -> Iterator[tuple[str, int]]:
    """Yield nodes of a hall (of all where it is none of the site's) and their GPUs, those of most power first."""
    halls = [h for h in site.halls if h.zone == hall] or list(site.halls)

    def gpu_w(rack: Rack) -> float:
        kind = site.node_types[rack.node_type]
        return kind.max_power_w / kind.gpus

    for rack in sorted((rack for h in halls for rack in h.racks()), key=gpu_w, reverse=True):
        yield from ((node, site.node_types[rack.node_type].gpus) for node in rack.nodes)


def _names(nodes: str | None) -> tuple[str, ...]:
    try:
        return expand(nodes) if nodes else ()
    except ValueError:
        return ()
