"""One more job beside a plan in which everything else stays: nodes that are free for it, and the limits that it lacks.

Loads are those of the true curves, nodes are real ones; nothing is estimated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from powerhall.hostlist import compress, expand
from powerhall.plan.plan import Assignment, Placement, Plan, Snapshot, snapshot_hash
from powerhall_optimizer.physics.plan_loads import loads_of, slot_span, zone_budgets
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.node_occupancy import NodeOccupancy, Split
from powerhall_optimizer.placement.zone_headroom import ZoneHeadroom
from powerhall_optimizer.planning.assemble import restated, with_loads
from powerhall_optimizer.problem.site_problem import Choice
from powerhall_optimizer.verify.plan import verify_plan
from powerhall_optimizer.verify.value import value_and_bound

__all__ = ["Beside", "Inserted", "Lack", "holds"]

replace = msgspec.structs.replace
_WATT = 0.5


@dataclass(frozen=True, slots=True)
class Lack:
    """What a limit lacks: W of power of a zone, or of cooling of a hall per W that its plants take up."""

    zone: str
    watts: float
    share: float
    medium: str = ""
    """Empty: power."""


@dataclass(frozen=True, slots=True)
class Inserted:
    """The job on nodes that are free, and what each limit then lacks at the worst; nothing where it fits."""

    entry: Assignment
    lacks: tuple[Lack, ...]


class Beside:
    """The free nodes and the loads of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.snapshot: Snapshot = plan.snapshot
        self.conditions = SiteConditions(plan.snapshot)
        self.headroom = ZoneHeadroom(self.conditions)
        self.known: dict[tuple[str, str], NodeOccupancy] = {}

    def openings(self, choice: Choice, duration: int) -> np.ndarray:
        """Return for each slot whether nodes are free for the job of a choice from it on."""
        return self._occupancy(choice).openings(choice.job.gpus, duration)

    def insert(self, choice: Choice, start: int, duration: int) -> Inserted | None:
        """Return the job at a start slot on nodes within the limits of rows and racks, else on others; None without."""
        occupancy = self._occupancy(choice)
        kind = self.snapshot.site.node_types[choice.node_type]
        gpu_w = max(0.0, choice.gpu_power_w - kind.idle_gpu_power_w)
        end = min(start + duration, self.snapshot.slots)
        split = occupancy.find(choice.job.gpus, gpu_w, start, end) or occupancy.find(choice.job.gpus, 0.0, start, end)
        if split is None:
            return None
        start_s = self.snapshot.start_s + start * self.snapshot.slot_s
        entry = Assignment(
            choice.job.job_id,
            choice.hall,
            choice.node_type,
            choice.mode,
            choice.job.gpus,
            choice.gpu_power_w,
            start_s,
            start_s + duration * self.snapshot.slot_s,
            _placements(occupancy, split),
        )
        return Inserted(entry, self._lacks(entry))

    def _occupancy(self, choice: Choice) -> NodeOccupancy:
        key = choice.hall, choice.node_type
        if key not in self.known:
            found = NodeOccupancy(self.conditions, *key, self.headroom)
            for entry in self.plan.assignments:
                if (entry.hall, entry.node_type) == key:
                    self._take(found, entry)
            self.known[key] = found
        return self.known[key]

    def _take(self, occupancy: NodeOccupancy, entry: Assignment) -> None:
        kind = self.snapshot.site.node_types[entry.node_type]
        gpu_w = max(0.0, entry.gpu_power_w - kind.idle_gpu_power_w)
        split = [
            (occupancy.index[node], placement.gpus_per_node)
            for placement in entry.placements
            for node in expand(placement.nodes)
            if node in occupancy.index
        ]
        span = slot_span(self.snapshot, entry)
        if split and span[0] < span[1]:
            occupancy.take(split, gpu_w, *span, running=entry.running)
            if entry.running:
                occupancy.close(split, *span)

    def _lacks(self, entry: Assignment) -> tuple[Lack, ...]:
        loads = loads_of(self.snapshot, (*self.plan.assignments, entry), self.plan.storages)
        found: list[Lack] = []
        for zone, budget_w in zone_budgets(self.snapshot).items():
            over_w = loads.zone_w[zone] - np.maximum(0.0, budget_w - self.snapshot.margin_w.get(zone, 0.0))
            if over_w.max() > _WATT:
                found.append(Lack(zone, float(over_w.max()), float((over_w / np.maximum(budget_w, 1.0)).max())))
        for zone, hall in loads.halls.items():
            for medium, heat_w in hall.heat_w.items():
                over_w = heat_w - hall.capacity_w[medium]
                if over_w.max() > _WATT:
                    share = over_w / np.maximum(hall.capacity_w[medium], 1.0)
                    found.append(Lack(zone, float(over_w.max()), float(share.max()), medium))
        return tuple(found)


def _placements(occupancy: NodeOccupancy, split: Split) -> tuple[Placement, ...]:
    groups: dict[tuple[str, int], list[str]] = {}
    for node, gpus in split:
        rack = occupancy.racks[int(occupancy.rack_of[node])]
        groups.setdefault((rack, gpus), []).append(occupancy.nodes[node])
    return tuple(Placement(rack, compress(nodes), gpus) for (rack, gpus), nodes in groups.items())


def holds(plan: Plan, snapshot: Snapshot, entries: Sequence[Assignment]) -> bool:
    """Whether the plan with these starts more, and all else kept, passes the checker for a changed snapshot."""
    started = {entry.job_id for entry in entries}
    draft = replace(
        plan,
        snapshot=snapshot,
        plan_id=snapshot_hash(snapshot),
        assignments=(*plan.assignments, *entries),
        waiting=tuple(entry for entry in plan.waiting if entry.job_id not in started),
        certificate=None,
    )
    value, bound = value_and_bound(draft)
    return not verify_plan(with_loads(restated(draft, value, bound), {}))
