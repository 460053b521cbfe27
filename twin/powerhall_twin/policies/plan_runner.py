"""Follows a plan in the engine: starts, stops and re-caps jobs as the newest plan says.

A job starts once its planned time has come, its GPUs are free, and the planned draw of all running jobs still fits
every budget. A start that is late because another job still runs therefore never puts a zone over its budget.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from powerhall.hostlist import expand
from powerhall.plan.plan import Assignment, Plan
from powerhall_twin.engine.columns import FUTURE, KIND, PLAN_NW, RUNNING, STATUS, VERSION, WAITING
from powerhall_twin.engine.sim_state import SimState

__all__ = ["PlanRunner"]


@dataclass(slots=True)
class PlanRunner:
    """The newest plan: entries still to come, latest first, entries that are late, and stops to come."""

    plan: Plan | None = None
    coming: list[Assignment] = field(default_factory=list)
    late: list[Assignment] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict)
    tried: int = -1

    def take(self, plan: Plan, state: SimState) -> None:
        """Adopt a plan: stop what it stops and change modes, those that lower power first."""
        self.plan, self.tried = plan, -1
        running = {entry.job_id: entry for entry in plan.assignments if entry.running}
        known = {job.job_id for job in plan.snapshot.jobs}
        waiting = {entry.job_id for entry in plan.waiting}
        self.ends = {job_id: float(entry.end_s) for job_id, entry in running.items() if job_id in waiting}
        self.late = []
        self.coming = sorted(
            (e for e in plan.assignments if not e.running), key=lambda e: (e.start_s, e.job_id), reverse=True
        )
        changes = []
        for j in state.running.tolist():
            entry = running.get(state.jobs[j].job_id)
            if entry is not None:
                changes.append((self._rise_nw(state, j, entry), j, entry))
            elif state.jobs[j].job_id in known:
                state.stop(j)
        for _, j, entry in sorted(changes, key=lambda change: change[:2]):
            kind = state.arrays.types[state.world.jobs.ints[KIND, j]]
            mode = kind.modes.index(kind.mode(entry.mode))
            state.set_mode(j, mode, entry.gpu_power_w)

    @staticmethod
    def _rise_nw(state: SimState, j: int, entry: Assignment) -> int:
        return state.arrays.added_nw(int(state.world.jobs.ints[KIND, j]), entry.gpu_power_w) - int(
            state.world.jobs.ints[PLAN_NW, j]
        )

    def planned_stores(self, now_s: float) -> tuple[Mapping[str, float] | None, float]:
        """Return what the plan's stores deliver in its slot of now, in W, and the end of the slot."""
        if self.plan is None:
            return None, math.inf
        snapshot = self.plan.snapshot
        slot = int((now_s - snapshot.start_s) // snapshot.slot_s)
        if not 0 <= slot < snapshot.slots:
            return None, math.inf
        until_s = float(snapshot.start_s + (slot + 1) * snapshot.slot_s)
        return {entry.name: float(entry.power_w[slot]) for entry in self.plan.storages}, until_s

    def follow(self, state: SimState) -> None:
        """Do what is due: planned stops, and starts whose GPUs are free and whose power fits."""
        jobs = state.world.jobs
        for job_id in [job_id for job_id, end_s in self.ends.items() if end_s <= state.now_s]:
            del self.ends[job_id]
            j = state.number_of[job_id]
            if jobs.ints[STATUS, j] == RUNNING:
                state.stop(j)
        due, version = len(self.late), int(jobs.sizes[VERSION])
        while self.coming and self.coming[-1].start_s <= state.now_s:
            self.late.append(self.coming.pop())
        if len(self.late) > due or version != self.tried:
            self.late = [entry for entry in self.late if not self._start(state, entry)]
            self.tried = version

    def _start(self, state: SimState, entry: Assignment) -> bool:
        """Start an entry; True where it is done with."""
        j = state.number_of.get(entry.job_id)
        if j is None or state.world.jobs.ints[STATUS, j] not in (WAITING, FUTURE):
            return True
        if state.world.jobs.ints[STATUS, j] == FUTURE:
            return False
        wanted = {node: place.gpus_per_node for place in entry.placements for node in expand(place.nodes)}
        nodes = _trim(wanted, entry.gpus)
        if not state.has_room(nodes, entry.gpu_power_w):
            return False
        kind = state.arrays.types[state.arrays.type_of[entry.node_type]]
        state.start(j, nodes, kind.modes.index(kind.mode(entry.mode)), entry.gpu_power_w)
        return True


def _trim(wanted: dict[str, int], gpus: int) -> dict[str, int]:
    """Cut the last node's GPUs where a gang is no multiple of a node."""
    left = gpus
    kept: dict[str, int] = {}
    for node, count in wanted.items():
        kept[node] = min(count, left)
        left -= kept[node]
    return {node: count for node, count in kept.items() if count > 0}
