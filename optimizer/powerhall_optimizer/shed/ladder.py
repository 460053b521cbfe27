"""The ladder of a plan: ordered actions with the power at the meter after each, computed in advance.

Order, least harm first: lower the power mode of jobs that may be preempted (by value lost per watt), then pause
those that can checkpoint (by weight of work per watt), then stop the other preemptible ones (the same). Jobs that may
not be preempted are protected: no action of the ladder touches them. So are jobs that run on one GPU together: what one
of them leaves, the others may draw. A cap holds for all GPUs of a node, so a job that shares a node with another one is
not slowed, only paused or stopped.

Powers are at the meter: true losses and cooling curves of the weather of the present slot, on planned draws.
"""

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.physics.cooling import hall_load
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Assignment, Plan, gpu_power_w, gpu_speed
from powerhall.site.index import SiteIndex
from powerhall.site.topology import JobClass, Mode, NodeType
from powerhall_optimizer.physics.site_conditions import SiteConditions

__all__ = ["Action", "ActionKind", "Ladder", "ladder"]


class ActionKind(StrEnum):
    """The action of a rung on a job; rungs come in this order."""

    LOWER = "lower"
    PAUSE = "pause"
    STOP = "stop"


_ORDER = {kind: number for number, kind in enumerate(ActionKind)}


class Action(msgspec.Struct, frozen=True):
    """One rung. `saved_w` is IT power; `left_w` is the site's power at the meter after this rung and all before it."""

    kind: ActionKind
    job_id: str
    hall: str
    mode: str
    saved_w: float
    harm_per_w: float
    left_w: float = 0.0


class Ladder(msgspec.Struct, frozen=True):
    """All rungs in order, from `power_w` at the meter now; `protected` names the jobs that no rung touches."""

    plan_id: str
    time_s: float
    power_w: float
    actions: tuple[Action, ...]
    protected: tuple[str, ...]

    def rungs_to(self, target_w: float) -> int:
        """Return how many rungs bring the power to `target_w` or below; all of them where none do."""
        if self.power_w <= target_w:
            return 0
        return next((i + 1 for i, action in enumerate(self.actions) if action.left_w <= target_w), len(self.actions))


@dataclass(slots=True)
class _Meter:
    """The site's power at the meter as halls lose IT power."""

    plan: Plan
    weather: Weather
    it_w: dict[str, list[float]]
    cooled_w: dict[str, dict[str, float]]
    battery_w: float
    """Power that batteries deliver; negative while they charge."""

    def hall_w(self, zone: str) -> float:
        hall = SiteIndex.of(self.plan.snapshot.site).halls[zone]
        liquid_w, air_w = self.it_w[zone]
        return hall_load(hall, liquid_w, air_w, self.weather, self.cooled_w[zone]).facility_power_w


def _running(plan: Plan, time_s: float) -> list[Assignment]:
    return [entry for entry in plan.assignments if entry.start_s <= time_s < entry.end_s]


def _meter(plan: Plan, running: list[Assignment], time_s: float) -> _Meter:
    conditions = SiteConditions(plan.snapshot)
    slot = min(plan.snapshot.slots - 1, max(0, int(time_s - plan.snapshot.start_s) // plan.snapshot.slot_s))
    it_w = {}
    for hall in plan.snapshot.site.halls:
        base = conditions.hall_base(hall)
        it_w[hall.zone] = [base.liquid_w, base.air_w]
    for entry in running:
        kind = plan.snapshot.site.node_types[entry.node_type]
        added_w = entry.gpus * max(0.0, entry.gpu_power_w - kind.idle_gpu_power_w)
        it_w[entry.hall][0] += kind.liquid_fraction * added_w
        it_w[entry.hall][1] += (1 - kind.liquid_fraction) * added_w
    cooled_w: dict[str, dict[str, float]] = {zone: {} for zone in it_w}
    battery_w = 0.0
    powers = {entry.name: entry.power_w[slot] for entry in plan.storages}
    for storage in plan.snapshot.site.storages:
        power_w = float(powers.get(storage.name, 0))
        if storage.kind == "battery":
            battery_w += power_w
        else:
            media_w = cooled_w[storage.zone]
            media_w[storage.medium] = media_w.get(storage.medium, 0.0) + power_w
    return _Meter(plan, conditions.weather[slot], it_w, cooled_w, battery_w)


def _lower(entry: Assignment, job: Job, kind: NodeType, job_class: JobClass | None) -> list[Action]:
    """Return the steps down from the job's mode, each no cheaper in harm per watt than the one before."""
    modes = kind.modes_from(entry.mode)
    found: list[Action] = []
    power_w, worst = entry.gpu_power_w, 0.0
    speed = gpu_speed(modes[0], job_class)
    for mode in modes[1:]:
        next_w = gpu_power_w(kind, mode, job_class)
        saved_w = entry.gpus * (power_w - next_w)
        if saved_w <= 0:
            continue
        lost = job.weight * entry.gpus * max(0.0, speed - gpu_speed(mode, job_class))
        worst = max(worst, lost / saved_w)
        found.append(Action(ActionKind.LOWER, entry.job_id, entry.hall, mode.name, saved_w, worst))
        power_w, speed = next_w, gpu_speed(mode, job_class)
    return found


def _lowest(kind: NodeType, job_class: JobClass | None, entry: Assignment) -> Mode:
    return min(kind.modes_from(entry.mode), key=lambda mode: gpu_power_w(kind, mode, job_class))


def _rungs(plan: Plan, running: list[Assignment]) -> list[Action]:
    site, jobs = plan.snapshot.site, {job.job_id: job for job in plan.snapshot.jobs}
    sharing, together = _sharing(running), _on_one_gpu(running)
    found: list[Action] = []
    for entry in running:
        job, kind = jobs[entry.job_id], site.node_types[entry.node_type]
        if not job.preemptible or entry.job_id in together:
            continue
        job_class = site.job_classes.get(job.job_class)
        steps = [] if entry.job_id in sharing else _lower(entry, job, kind, job_class)
        found += steps
        lowest_w = entry.gpu_power_w
        if steps:
            lowest_w = min(lowest_w, gpu_power_w(kind, _lowest(kind, job_class, entry), job_class))
        saved_w = entry.gpus * max(0.0, lowest_w - kind.idle_gpu_power_w)
        what = ActionKind.PAUSE if job.checkpoint_cost_s > 0 else ActionKind.STOP
        mode = steps[-1].mode if steps else entry.mode
        found.append(Action(what, entry.job_id, entry.hall, mode, saved_w, job.weight * entry.gpus / max(saved_w, 1.0)))
    return sorted(found, key=lambda a: (_ORDER[a.kind], a.harm_per_w, a.job_id, -a.saved_w))


def _on_one_gpu(running: list[Assignment]) -> set[str]:
    """Return the jobs that share a GPU with another one."""
    guests = [entry for entry in running if entry.beside]
    return {entry.job_id for entry in guests} | {entry.beside for entry in guests}


def _sharing(running: list[Assignment]) -> set[str]:
    """Return the jobs that share a node with another one."""
    on: dict[str, list[str]] = defaultdict(list)
    for entry in running:
        for placement in entry.placements:
            for node in expand(placement.nodes):
                on[node].append(entry.job_id)
    return {job_id for jobs in on.values() if len(set(jobs)) > 1 for job_id in jobs}


def ladder(plan: Plan, time_s: float) -> Ladder:
    """Return the plan's ladder at `time_s`."""
    running = _running(plan, time_s)
    meter = _meter(plan, running, time_s)
    halls = {hall.zone: meter.hall_w(hall.zone) for hall in plan.snapshot.site.halls}
    start_w = total_w = sum(halls.values()) - meter.battery_w
    types = {entry.job_id: plan.snapshot.site.node_types[entry.node_type] for entry in running}
    actions = []
    for action in _rungs(plan, running):
        share = types[action.job_id].liquid_fraction
        meter.it_w[action.hall][0] -= share * action.saved_w
        meter.it_w[action.hall][1] -= (1 - share) * action.saved_w
        after_w = meter.hall_w(action.hall)
        total_w += after_w - halls[action.hall]
        halls[action.hall] = after_w
        actions.append(msgspec.structs.replace(action, left_w=total_w))
    jobs = {job.job_id: job for job in plan.snapshot.jobs}
    together = _on_one_gpu(running)
    kept = (entry for entry in running if entry.job_id in together or not jobs[entry.job_id].preemptible)
    protected = tuple(entry.job_id for entry in kept)
    return Ladder(plan.plan_id, time_s, start_w, tuple(actions), protected)


def by_job(actions: tuple[Action, ...]) -> dict[str, list[Action]]:
    """Group actions by job, in order."""
    found: dict[str, list[Action]] = defaultdict(list)
    for action in actions:
        found[action.job_id].append(action)
    return dict(found)
