"""EASY backfilling: later jobs may pass the head of the queue where they do not delay its reservation.

The reservation is of nodes and of power: the head starts once enough runs have ended for its GPUs and for every budget
and cooling capacity as they are now. A job that ends later may pass only on nodes and power that the head leaves.
Source: Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from object_actions import Action, Start
from object_admission import Admission, added_rack_w
from object_cluster import Cluster, Run
from object_placement import (
    admitted_start,
    could_ever_start,
    fastest_modes,
    release,
    reserve,
    stop_youngest,
)
from object_queue import JobRecord
from object_view import PolicyView

from powerhall.plan.plan import gpu_speed
from powerhall.site.topology import Mode


@dataclass(slots=True)
class Easy:
    """EASY backfilling at full power."""

    def decide(self, view: PolicyView) -> Iterable[Action]:
        """Stop runs where a budget does not hold, else start and backfill."""
        return stop_youngest(view) or backfill(view, fastest_modes(view.site))


@dataclass(slots=True)
class _Reservation:
    """The head of the queue on its nodes at the time when it can start, beside the runs that still go on then."""

    start_s: float
    then: PolicyView
    admission: Admission


def backfill(view: PolicyView, mode_of: Mapping[str, Mode]) -> list[Start]:
    """Start in order; behind the first job that does not fit, start those that do not delay it."""
    admission = Admission.of(view.cluster, view.budgets, view.weather)
    starts: list[Start] = []
    unfit: set[tuple[object, ...]] = set()  # a job with the same needs as one that did not fit is not tried again
    head: _Reservation | None = None
    for record in list(view.queue.waiting(view.cluster, view.now_s)):
        job = record.job
        is_long = head is not None and view.now_s + _run_s(view, record, mode_of) > head.start_s
        needs = is_long, job.gpus, job.job_class, job.halls, job.node_types
        if needs in unfit:
            continue
        if is_long and head is not None:
            start = _start_beside(view, record, mode_of, admission, head)
        else:
            start = admitted_start(view, record, mode_of, admission)
        if start is not None:
            starts.append(start)
            reserve(view.cluster, start)
            continue
        unfit.add(needs)
        if head is None and could_ever_start(view, record, mode_of):
            head = _reserve_head(view, record, mode_of, starts)
    release(view.cluster, starts)
    return starts


def _run_s(view: PolicyView, record: JobRecord, mode_of: Mapping[str, Mode]) -> float:
    """Return how long the job may take: its remaining work at the lowest speed of the modes."""
    known = view.site.job_classes.get(record.job.job_class)
    return record.left_s / min(gpu_speed(mode, known) for mode in mode_of.values())


def _ends(view: PolicyView, starts: Iterable[Start]) -> list[tuple[float, str, Run]]:
    runs = [*view.cluster.runs.values(), *(start.run(view.now_s) for start in starts)]
    found = []
    for run in runs:
        speed = gpu_speed(run.mode, view.site.job_classes.get(run.job.job_class))
        found.append((view.now_s + run.left_s / speed, run.job.job_id, run))
    return sorted(found, key=lambda entry: entry[:2])


def _reserve_head(
    view: PolicyView, record: JobRecord, mode_of: Mapping[str, Mode], starts: list[Start]
) -> _Reservation:
    """End the runs one after another until the head fits; if all ended, it fits."""
    then = Cluster(view.site, {node: set(gpus) for node, gpus in view.cluster.free.items()}, dict(view.cluster.runs))
    for start in starts:
        then.runs[start.job.job_id] = start.run(view.now_s)
    at = PolicyView(view.site, then, view.queue, view.budgets, view.weather, view.now_s)
    start_s = view.now_s
    for end_s, job_id, _ in _ends(view, starts):
        then.stop(job_id)
        start_s = end_s
        admission = Admission.of(then, view.budgets, view.weather)
        placed = admitted_start(at, record, mode_of, admission)
        if placed is not None:
            reserve(then, placed)
            break
    return _Reservation(start_s, at, admission)


class _Both(Admission):
    """Admits what fits now and at the reservation."""

    __slots__ = ("moments",)

    def room_w(self, zone):
        return min(moment.room_w(zone) for moment in self.moments)

    def admit(self, added_w):
        return all(
            moment.fits({rack: w + added_w.get(rack, 0.0) for rack, w in moment.rack_w.items()})
            for moment in self.moments
        )


def _start_beside(
    view: PolicyView, record: JobRecord, mode_of: Mapping[str, Mode], admission: Admission, head: _Reservation
) -> Start | None:
    """Return a start on nodes and power that are free both now and beside the head at its reservation."""
    then = head.then.cluster
    both = Cluster(view.site, {node: gpus & then.free[node] for node, gpus in view.cluster.free.items()})
    fits_both = _Both(both, view.budgets, view.weather, admission.rack_w, admission.meter)
    fits_both.moments = admission, head.admission
    beside = PolicyView(view.site, both, view.queue, view.budgets, view.weather, view.now_s)
    start = admitted_start(beside, record, mode_of, fits_both)
    if start is not None:
        added = added_rack_w(view.cluster, start)
        admission.add(added)
        head.admission.add(added)
        reserve(then, start)
    return start
