"""Scheduling policies to compare with plans: first come first served, EASY backfilling, and one cap for all.

All of them keep the budgets in force now, by the planning figures: a job starts only where it fits, and when a budget
falls below what runs, the youngest jobs are stopped until it holds. None of them looks ahead.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from powerhall.physics.weather import Weather
from powerhall.plan.plan import gpu_power_w
from powerhall.site.topology import Mode, NodeType, Site
from powerhall_twin.policies.plan_follower import Admission, added_rack_w
from powerhall_twin.site.actions import Action, SetMode, Start, Stop
from powerhall_twin.site.cluster import Cluster
from powerhall_twin.site.queue import JobRecord, Queue

__all__ = ["POLICIES", "Easy", "Fcfs", "Policy", "UniformCap", "View", "shed"]


@dataclass(frozen=True, slots=True)
class View:
    """What a policy sees at a moment."""

    site: Site
    cluster: Cluster
    queue: Queue
    budgets: Mapping[str, float]
    weather: Weather
    now_s: float


class Policy(Protocol):
    """Decides what starts, stops and changes now."""

    def decide(self, view: View) -> Iterable[Action]:
        """Return the actions to take at this moment; called whenever something has happened."""
        ...


def shed(view: View) -> list[Action]:
    """Stop the youngest runs until what runs fits the budgets by its planning figures."""
    admission = Admission.of(view.cluster, view.budgets, view.weather)
    stops: list[Action] = []
    for run in sorted(view.cluster.runs.values(), key=lambda r: (-r.start_s, r.job.job_id)):
        if admission.holds():
            break
        for part in run.slices:
            rack = view.cluster.index.rack_of[part.node].zone
            added_w = max(0.0, run.planned_gpu_w - run.kind.idle_gpu_power_w)
            admission.rack_w[rack] -= added_w * len(part.gpus)
        stops.append(Stop(run.job.job_id))
    return stops


def start_of(view: View, record: JobRecord, hall: str, mode_of: Mapping[str, Mode]) -> Start | None:
    """Return the start of a job in a hall in the mode given per node type; None where its GPUs are not free."""
    slices = view.cluster.fit(record.job, hall)
    if slices is None:
        return None
    kind = view.cluster.index.node_type(slices[0].node)
    mode = mode_of[kind.name]
    draw_w = gpu_power_w(kind, mode, view.site.job_classes.get(record.job.job_class))
    return Start(record.job, hall, kind, mode, slices, draw_w, record.left_s)


def halls_by_room(view: View) -> list[str]:
    """Return the halls, those with the most free GPUs first."""
    free: dict[str, int] = {}
    for node, gpus in view.cluster.free.items():
        hall = view.cluster.index.hall_of(node).zone
        free[hall] = free.get(hall, 0) + len(gpus)
    return sorted(free, key=lambda hall: (-free[hall], hall))


def fastest(site: Site) -> dict[str, Mode]:
    """Return the fastest mode of every node type."""
    return {name: kind.modes[0] for name, kind in site.node_types.items()}


@dataclass(slots=True)
class Fcfs:
    """Starts jobs in order of submission at full power; the first one that does not fit holds back all others."""

    def decide(self, view: View) -> Iterable[Action]:
        """Shed if needed, else start from the head of the queue."""
        stops = shed(view)
        if stops:
            return stops
        return start_in_order(view, fastest(view.site))


def start_in_order(view: View, mode_of: Mapping[str, Mode]) -> list[Start]:
    """Return the starts from the head of the queue up to the first job that does not fit."""
    admission = Admission.of(view.cluster, view.budgets, view.weather)
    starts: list[Start] = []
    for record in list(view.queue.waiting(view.cluster, view.now_s)):
        start = admitted(view, record, mode_of, admission)
        if start is None:
            break
        starts.append(start)
        hold(view.cluster, start)
    release(view.cluster, starts)
    return starts


def admitted(view: View, record: JobRecord, mode_of: Mapping[str, Mode], admission: Admission) -> Start | None:
    """Return the first start of a job that fits both nodes and budgets."""
    for hall in halls_by_room(view):
        start = start_of(view, record, hall, mode_of)
        if start is not None and admission.admit(added_rack_w(view.cluster, start)):
            return start
    return None


def hold(cluster: Cluster, start: Start) -> None:
    """Take a start's GPUs while a policy goes on deciding."""
    for part in start.slices:
        cluster.free[part.node] -= set(part.gpus)


def release(cluster: Cluster, starts: Iterable[Start]) -> None:
    """Give the GPUs of held starts back, so that they can be applied."""
    for start in starts:
        for part in start.slices:
            cluster.free[part.node] |= set(part.gpus)


@dataclass(slots=True)
class Easy:
    """EASY backfilling at full power: later jobs pass the head of the queue if they do not delay its reservation."""

    modes: Mapping[str, Mode] = field(default_factory=dict)

    def decide(self, view: View) -> Iterable[Action]:
        """Shed if needed, else start in order and backfill behind the reservation of the first job that waits."""
        stops = shed(view)
        return stops or self.backfill(view, self.modes or fastest(view.site))

    def backfill(self, view: View, mode_of: Mapping[str, Mode]) -> list[Start]:
        """Start what may start now. A job that is just like one that did not fit is not tried again."""
        admission = Admission.of(view.cluster, view.budgets, view.weather)
        starts: list[Start] = []
        unfit: set[tuple[object, ...]] = set()
        shadow_s: float | None = None
        for record in list(view.queue.waiting(view.cluster, view.now_s)):
            if shadow_s is not None and view.now_s + record.left_s > shadow_s:
                continue
            kind = record.job.gpus, record.job.job_class, record.job.halls, record.job.node_types
            start = None if kind in unfit else admitted(view, record, mode_of, admission)
            if start is not None:
                starts.append(start)
                hold(view.cluster, start)
                continue
            unfit.add(kind)
            if shadow_s is None:
                shadow_s = reservation_s(view, record)
        release(view.cluster, starts)
        return starts


def reservation_s(view: View, record: JobRecord) -> float:
    """Return when the job could start by GPU counts, as the runs end one after the other (power is not foreseen)."""
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
            best = min(best, view.now_s + max(at, 300.0))
    return best


@dataclass(slots=True)
class UniformCap:
    """One power mode for the whole site, the fastest in which every GPU could be busy at once; EASY order."""

    easy: Easy = field(default_factory=Easy)

    def decide(self, view: View) -> Iterable[Action]:
        """Move everything to the mode of the moment, shed if even that is too much, then start jobs in it."""
        modes = {name: self.mode(view, kind) for name, kind in view.site.node_types.items()}
        changes: list[Action] = []
        for run in view.cluster.runs.values():
            mode = modes[run.kind.name]
            if mode.name != run.mode.name:
                draw_w = gpu_power_w(run.kind, mode, view.site.job_classes.get(run.job.job_class))
                changes.append(SetMode(run.job.job_id, mode, draw_w))
        return changes or shed(view) or self.easy.backfill(view, modes)

    def mode(self, view: View, kind: NodeType) -> Mode:
        """Return the fastest mode in which a full site keeps its budgets; the slowest where none does."""
        admission = Admission.of(Cluster.of(view.site), view.budgets, view.weather)
        for mode in kind.modes:
            full = {
                rack.zone: len(rack.nodes) * k.gpus * _mode_w(k, mode)
                for rack in view.site.racks()
                for k in (view.site.node_types[rack.node_type],)
            }
            if admission.fits(full):
                return mode
        return kind.modes[-1]


def _mode_w(kind: NodeType, mode: Mode) -> float:
    same = kind.find_mode(mode.name)
    return min(m.gpu_power_w for m in kind.modes) if same is None else same.gpu_power_w


POLICIES: Final = {"fcfs": Fcfs, "easy": Easy, "uniform": UniformCap}
"""Policies that need no solver, by the name that the command line knows them by."""
