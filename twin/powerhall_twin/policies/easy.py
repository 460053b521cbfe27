"""EASY backfilling: later jobs may pass the head of the queue where they do not delay its reservation.

Source: Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from powerhall.site.topology import Mode
from powerhall_twin.policies.admission import Admission
from powerhall_twin.policies.placement import admitted_start, fastest_modes, release, reserve, stop_youngest
from powerhall_twin.policies.policy import PolicyKind, PolicyView
from powerhall_twin.site.actions import Action, Start
from powerhall_twin.site.queue import JobRecord

__all__ = ["EASY", "Easy", "backfill"]

_MIN_RESERVATION_S = 300.0


@dataclass(slots=True)
class Easy:
    """EASY backfilling at full power."""

    def decide(self, view: PolicyView) -> Iterable[Action]:
        """Stop runs where a budget does not hold, else start and backfill."""
        return stop_youngest(view) or backfill(view, fastest_modes(view.site))


def backfill(view: PolicyView, mode_of: Mapping[str, Mode]) -> list[Start]:
    """Start in order; behind the first job that does not fit, start those that end before its reservation."""
    admission = Admission.of(view.cluster, view.budgets, view.weather)
    starts: list[Start] = []
    unfit: set[tuple[object, ...]] = set()  # a job with the same needs as one that did not fit is not tried again
    shadow_s: float | None = None
    for record in list(view.queue.waiting(view.cluster, view.now_s)):
        if shadow_s is not None and view.now_s + record.left_s > shadow_s:
            continue
        needs = record.job.gpus, record.job.job_class, record.job.halls, record.job.node_types
        start = None if needs in unfit else admitted_start(view, record, mode_of, admission)
        if start is not None:
            starts.append(start)
            reserve(view.cluster, start)
            continue
        unfit.add(needs)
        if shadow_s is None:
            shadow_s = _reservation_s(view, record)
    release(view.cluster, starts)
    return starts


def _reservation_s(view: PolicyView, record: JobRecord) -> float:
    """Return when the job could start by GPU counts, as the runs end one after another; power is not considered."""
    need = record.job.gpus
    best = float("inf")
    for hall in record.job.halls or [hall.zone for hall in view.site.halls]:
        hall_of = view.cluster.index.hall_of
        free = sum(len(gpus) for node, gpus in view.cluster.free.items() if hall_of(node).zone == hall)
        ends = sorted((r.left_s, r.job.gpus) for r in view.cluster.runs.values() if r.hall == hall)
        at = 0.0
        for left_s, gpus in ends:
            if free >= need:
                break
            free, at = free + gpus, left_s
        if free >= need:
            best = min(best, view.now_s + max(at, _MIN_RESERVATION_S))
    return best


EASY = PolicyKind("easy", "EASY backfilling", lambda _: Easy())
