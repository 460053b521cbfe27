"""What every check of a plan works on: the plan with its inputs by name, and the violations that checks yield."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Assignment, Plan, Snapshot, snapshot_hash
from powerhall.site.topology import Mode, NodeType
from powerhall_optimizer.verify.times import time_text

__all__ = ["WATT", "Check", "Floats", "PlanCase", "Violation", "claims", "over"]

Floats = npt.NDArray[np.float64]
WATT = 0.5
"""Rounding of planned draws to whole watts is no violation."""
GAP = 1e-9
"""Nor is rounding of the gap."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One violation: `kind` is a code, `where` a zone, node or job."""

    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        """The line that commands print."""
        return f"{self.kind}: {self.where}: {self.text}"


def claims(plan: Plan | MultiSitePlan, where: str) -> Iterator[Violation]:
    """The gap follows from value and bound, and only a plan that is worth its bound is optimal."""
    gap = (plan.bound - plan.value) / plan.bound if plan.bound > 0 else 0.0
    if not abs(plan.gap - gap) <= GAP:
        yield Violation("gap", where, f"is {plan.gap:g} in the plan; its value and bound give {gap:g}")
    if plan.status == "optimal" and plan.value < plan.bound:
        yield Violation(
            "status", where, f"is optimal in the plan; its bound is {plan.bound - plan.value} above its value"
        )


class PlanCase:
    """A plan with the inputs of every check."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.plan_id = snapshot_hash(plan.snapshot)
        if plan.version == 1:  # nodes that were down drew nothing then
            off = msgspec.structs.replace(plan.snapshot, off_nodes=plan.snapshot.down_nodes, down_nodes=())
            self.plan = msgspec.structs.replace(plan, snapshot=off)
        self.snapshot: Snapshot = self.plan.snapshot
        self.site = plan.snapshot.site
        self.jobs = {job.job_id: job for job in plan.snapshot.jobs}
        self.racks = {rack.zone: rack for rack in self.site.racks()}
        self.pairs = [(self.jobs[a.job_id], a) for a in plan.assignments if a.job_id in self.jobs]
        self.waiting = {entry.job_id: entry for entry in plan.waiting}

    def kind_mode(self, entry: Assignment) -> tuple[NodeType | None, Mode | None]:
        kind = self.site.node_types.get(entry.node_type)
        mode = None if kind is None else next((m for m in kind.modes if m.name == entry.mode), None)
        return kind, mode

    def when(self, slot: int) -> str:
        return time_text(self.snapshot.start_s + slot * self.snapshot.slot_s)


Check = Callable[[PlanCase], Iterator[Violation]]


def overlaps(case: PlanCase, node: str, spans: list[tuple[int, int, bool, bool, str]]) -> Iterator[Violation]:
    for number, (_, last, gang, starts, job_id) in enumerate(spans):
        for first, _, other_gang, other_starts, other in spans[number + 1 :]:
            if first >= last:
                break
            if (gang or other_gang) and (starts or other_starts):
                yield Violation(
                    "gang", node, f"is shared by {job_id} and {other} at {case.when(first)}; a gang is alone"
                )
                return


def over(case: PlanCase, kind: str, zone: str, load_w: Floats, limit_w: Floats) -> Iterator[Violation]:
    """Yield the violation of a limit that the load exceeds, told by its worst slot."""
    excess_w = load_w - limit_w
    slot = int(np.argmax(excess_w))
    if excess_w[slot] > WATT:
        count = int((excess_w > WATT).sum())
        text = f"{load_w[slot]:.0f} W at {case.when(slot)}; the limit is {limit_w[slot]:.0f} W ({count} slots over)"
        yield Violation(kind, zone, text)
