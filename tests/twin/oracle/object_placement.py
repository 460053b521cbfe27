"""Steps that the policies share: stop runs to meet a budget, find GPUs and power for a job, reserve them meanwhile.

A site's own tools would place a job where its racks have power: racks are filled up to their headroom, and a job of
several nodes spreads over racks, rows and feeds until it has all its nodes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

from object_actions import Start, Stop
from object_admission import Admission, added_rack_w
from object_cluster import Cluster, Run
from object_queue import JobRecord
from object_view import PolicyView

from powerhall.plan.plan import gpu_power_w
from powerhall.site.topology import Mode, NodeType, Rack, Site

_TINY_W = 1e-6


def stop_youngest(view: PolicyView) -> list[Stop]:
    """Stop runs until the planned power of the others fits: preemptible ones first, of these the youngest.

    Only runs that draw from a zone or hall over its limit are stopped.
    """
    admission = Admission.of(view.cluster, view.budgets, view.weather)
    stops: list[Stop] = []
    order = sorted(view.cluster.runs.values(), key=lambda r: (not r.job.preemptible, -r.start_s, r.job.job_id))
    while over := admission.zones_over():
        victim = next((run for run in order if over & _zones_of(view.cluster, run)), None)
        if victim is None:
            break
        order.remove(victim)
        admission.remove(victim)
        stops.append(Stop(victim.job.job_id))
    return stops


def _zones_of(cluster: Cluster, run: Run) -> set[str]:
    index = cluster.index
    racks = {index.rack_of[part.node].zone for part in run.slices}
    return {cluster.site.name, *(zone for rack in racks for zone in index.zones_above(rack))}


def fastest_modes(site: Site) -> dict[str, Mode]:
    """Return the fastest mode of every node type."""
    return {name: kind.modes[0] for name, kind in site.node_types.items()}


def admitted_start(
    view: PolicyView, record: JobRecord, mode_of: Mapping[str, Mode], admission: Admission
) -> Start | None:
    """Return the first start of a job that fits nodes and budgets; halls with the most free GPUs come first."""
    job = record.job
    for hall in _halls_by_free_gpus(view.cluster):
        if job.halls and hall not in job.halls:
            continue
        for kind in view.site.node_types.values():
            if job.node_types and kind.name not in job.node_types:
                continue
            mode = mode_of[kind.name]
            draw_w = gpu_power_w(kind, mode, view.site.job_classes.get(job.job_class))
            slices = view.cluster.take(find_nodes(admission, hall, kind, job.gpus, draw_w) or {})
            if slices:
                start = Start(job, hall, kind, mode, slices, draw_w, record.left_s)
                if admission.admit(added_rack_w(view.cluster, start)):
                    return start
    return None


def could_ever_start(view: PolicyView, record: JobRecord, mode_of: Mapping[str, Mode]) -> bool:
    """Return whether the job would fit if nothing else ran, under the budgets and in the weather of now."""
    empty = Cluster.of(view.site)
    alone = PolicyView(view.site, empty, view.queue, view.budgets, view.weather, view.now_s)
    return admitted_start(alone, record, mode_of, Admission.of(empty, view.budgets, view.weather)) is not None


def find_nodes(admission: Admission, hall: str, kind: NodeType, gpus: int, gpu_w: float) -> dict[str, int] | None:
    """Return free GPUs per node for a job in a hall, where racks, rows, feeds and hall have the power; None if none.

    A small job goes to the fullest node that holds it; a large one takes whole nodes of the smallest rack that holds
    it, else of as few racks as their headroom allows. The last node's GPUs are cut to what the job asks for.
    """
    cluster, added_w = admission.cluster, max(0.0, gpu_w - kind.idle_gpu_power_w)
    racks = [rack for rack in cluster.index.halls[hall].racks() if rack.node_type == kind.name]
    if gpus <= kind.gpus:
        room = [rack for rack in racks if _most(admission, rack, gpus * added_w) >= 1]
        nodes = [n for rack in room for n in rack.nodes if len(cluster.free[n]) >= gpus]
        return {min(nodes, key=lambda n: len(cluster.free[n])): gpus} if nodes else None
    need = math.ceil(gpus / kind.gpus)
    each_w = kind.gpus * added_w
    free = {rack.zone: [n for n in rack.nodes if len(cluster.free[n]) == kind.gpus] for rack in racks}
    most = {r.zone: min(len(free[r.zone]), _most(admission, r, each_w)) for r in racks}
    enough = [zone for zone, nodes in most.items() if nodes >= need]
    if enough:
        nodes = free[min(enough, key=lambda zone: len(free[zone]))][:need]
    else:
        nodes = list(_spread(admission, free, most, need, each_w))
    if len(nodes) < need:
        return None
    return dict.fromkeys(nodes[:-1], kind.gpus) | {nodes[-1]: gpus - (need - 1) * kind.gpus}


def _most(admission: Admission, rack: Rack, each_w: float) -> int:
    """Return how many nodes of so much added power the zones above a rack still carry."""
    rooms_w = [admission.room_w(zone) for zone in admission.cluster.index.zones_above(rack.zone)]
    least_w = min(rooms_w)
    if each_w <= 0 or least_w == math.inf:
        return len(rack.nodes)
    return math.floor((least_w + _TINY_W) / each_w)


def _spread(
    admission: Admission, free: Mapping[str, list[str]], most: Mapping[str, int], need: int, each_w: float
) -> Iterator[str]:
    """Yield nodes of the racks with the most room first; what is taken counts for the zones that racks share."""
    taken_w: dict[str, float] = {}
    for rack in sorted(most, key=lambda zone: -most[zone]):
        zones = admission.cluster.index.zones_above(rack)
        for node in free[rack]:
            if need == 0 or any(taken_w.get(z, 0.0) + each_w > admission.room_w(z) + _TINY_W for z in zones):
                break
            for zone in zones:
                taken_w[zone] = taken_w.get(zone, 0.0) + each_w
            need -= 1
            yield node


def _halls_by_free_gpus(cluster: Cluster) -> list[str]:
    free: dict[str, int] = {}
    for node, gpus in cluster.free.items():
        hall = cluster.index.hall_of(node).zone
        free[hall] = free.get(hall, 0) + len(gpus)
    return sorted(free, key=lambda hall: (-free[hall], hall))


def reserve(cluster: Cluster, start: Start) -> None:
    """Take the GPUs of a start out of the free ones, so that the policy can go on deciding."""
    for part in start.slices:
        cluster.free[part.node] -= set(part.gpus)


def release(cluster: Cluster, starts: Iterable[Start]) -> None:
    """Return the GPUs of reserved starts, so that the starts can be applied."""
    for start in starts:
        for part in start.slices:
            cluster.free[part.node] |= set(part.gpus)
