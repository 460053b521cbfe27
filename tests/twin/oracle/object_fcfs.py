"""First come, first served: jobs start in order of submission at full power."""

from collections.abc import Iterable
from dataclasses import dataclass

from object_actions import Action, Start
from object_admission import Admission
from object_placement import (
    admitted_start,
    could_ever_start,
    fastest_modes,
    release,
    reserve,
    stop_youngest,
)
from object_view import PolicyView


@dataclass(slots=True)
class Fcfs:
    """Starts jobs in order of submission; the first job that does not fit holds back all later ones.

    One that would not fit even if nothing else ran waits for other budgets or weather, and holds back nobody.
    """

    def decide(self, view: PolicyView) -> Iterable[Action]:
        """Stop runs where a budget does not hold, else start from the head of the queue."""
        return stop_youngest(view) or self._start_in_order(view)

    def _start_in_order(self, view: PolicyView) -> list[Start]:
        modes = fastest_modes(view.site)
        admission = Admission.of(view.cluster, view.budgets, view.weather)
        starts: list[Start] = []
        for record in list(view.queue.waiting(view.cluster, view.now_s)):
            start = admitted_start(view, record, modes, admission)
            if start is not None:
                starts.append(start)
                reserve(view.cluster, start)
            elif could_ever_start(view, record, modes):
                break
        release(view.cluster, starts)
        return starts
