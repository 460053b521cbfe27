"""Steps that the policies share: stop runs to meet a budget, find GPUs for a job, reserve them while deciding."""

from collections.abc import Iterable, Mapping

from powerhall.plan.plan import gpu_power_w
from powerhall.site.topology import Mode, Site
from powerhall_twin.policies.admission import Admission, added_rack_w
from powerhall_twin.policies.policy import PolicyView
from powerhall_twin.site.actions import Start, Stop
from powerhall_twin.site.cluster import Cluster
from powerhall_twin.site.queue import JobRecord

__all__ = ["admitted_start", "fastest_modes", "release", "reserve", "stop_youngest"]


def stop_youngest(view: PolicyView) -> list[Stop]:
    """Stop the youngest runs until the planned power of the others fits the budgets."""
    admission = Admission.of(view.cluster, view.budgets, view.weather)
    stops: list[Stop] = []
    for run in sorted(view.cluster.runs.values(), key=lambda r: (-r.start_s, r.job.job_id)):
        if admission.holds():
            break
        for part in run.slices:
            rack = view.cluster.index.rack_of[part.node].zone
            added_w = max(0.0, run.planned_gpu_w - run.node_type.idle_gpu_power_w)
            admission.rack_w[rack] -= added_w * len(part.gpus)
        stops.append(Stop(run.job.job_id))
    return stops


def fastest_modes(site: Site) -> dict[str, Mode]:
    """Return the fastest mode of every node type."""
    return {name: kind.modes[0] for name, kind in site.node_types.items()}


def admitted_start(
    view: PolicyView, record: JobRecord, mode_of: Mapping[str, Mode], admission: Admission
) -> Start | None:
    """Return the first start of a job that fits nodes and budgets; halls with the most free GPUs come first."""
    for hall in _halls_by_free_gpus(view):
        start = _start_in(view, record, hall, mode_of)
        if start is not None and admission.admit(added_rack_w(view.cluster, start)):
            return start
    return None


def _start_in(view: PolicyView, record: JobRecord, hall: str, mode_of: Mapping[str, Mode]) -> Start | None:
    """Return the start of a job in a hall, in the mode of its node type; None where the GPUs are not free."""
    slices = view.cluster.fit(record.job, hall)
    if slices is None:
        return None
    kind = view.cluster.index.node_type(slices[0].node)
    mode = mode_of[kind.name]
    draw_w = gpu_power_w(kind, mode, view.site.job_classes.get(record.job.job_class))
    return Start(record.job, hall, kind, mode, slices, draw_w, record.left_s)


def _halls_by_free_gpus(view: PolicyView) -> list[str]:
    free: dict[str, int] = {}
    for node, gpus in view.cluster.free.items():
        hall = view.cluster.index.hall_of(node).zone
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
