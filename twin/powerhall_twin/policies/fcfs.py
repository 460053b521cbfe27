"""First come, first served: jobs start in order of submission at full power."""

from collections.abc import Iterable
from dataclasses import dataclass

from powerhall_twin.policies.admission import Admission
from powerhall_twin.policies.placement import admitted_start, fastest_modes, release, reserve, stop_youngest
from powerhall_twin.policies.policy import PolicyKind, PolicyView
from powerhall_twin.site.actions import Action, Start

__all__ = ["FCFS", "Fcfs"]


@dataclass(slots=True)
class Fcfs:
    """Starts jobs in order of submission; the first job that does not fit blocks all later ones."""

    def decide(self, view: PolicyView) -> Iterable[Action]:
        """Stop runs where a budget does not hold, else start from the head of the queue."""
        return stop_youngest(view) or self._start_in_order(view)

    def _start_in_order(self, view: PolicyView) -> list[Start]:
        modes = fastest_modes(view.site)
        admission = Admission.of(view.cluster, view.budgets, view.weather)
        starts: list[Start] = []
        for record in list(view.queue.waiting(view.cluster, view.now_s)):
            start = admitted_start(view, record, modes, admission)
            if start is None:
                break
            starts.append(start)
            reserve(view.cluster, start)
        release(view.cluster, starts)
        return starts


FCFS = PolicyKind("fcfs", "first come, first served", lambda _: Fcfs())
