"""From a snapshot to a verified plan: keep what runs, solve, place, verify; each step falls back to a simpler one."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from powerhall.plan.plan import Certificate as PlanCertificate
from powerhall.plan.plan import Plan, Planned, Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.physics.limits import Ground
from powerhall_optimizer.placement.place import place
from powerhall_optimizer.placement.placer import Placed
from powerhall_optimizer.planning.assemble import assemble
from powerhall_optimizer.planning.running_jobs import Kept, keep_running
from powerhall_optimizer.planning.storage_steps import Stores
from powerhall_optimizer.problem.arrays import Certificate, Schedule
from powerhall_optimizer.problem.build import Built, build
from powerhall_optimizer.problem.certificate import from_prices, to_prices
from powerhall_optimizer.problem.usage import usage_of
from powerhall_optimizer.solve.child_process import guarded
from powerhall_optimizer.solve.density_greedy import fill_by_density
from powerhall_optimizer.storage.model import Dispatch, StoreModel
from powerhall_optimizer.verify.plan import verify_plan
from powerhall_optimizer.verify.schedule import check_schedule
from powerhall_optimizer.verify.value import proven_bound

__all__ = ["NOTHING", "Draft", "Last", "Ready", "Task", "Unplannable", "drafts", "get_ready", "make_plan"]
__all__ += ["shed_note", "status_of"]

NOTHING = "no step of the chain gave a draft"

_PLACE_SHARE = 0.15
"""Part of a round's time that is kept for placing."""
_GRACE_S = 20.0
"""How long the solver may overrun: it compiles on its first run, and ends a step that it has begun."""


class Unplannable(PowerhallError):  # noqa: N818 - named after what it says
    """No plan passed the checker, not even the one that starts nothing new; the text names the first broken limit."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A schedule before placement, with what is proven about it."""

    schedule: Schedule
    status: str
    bound: int
    certificate: PlanCertificate | None = None
    notes: tuple[str, ...] = ()
    dispatch: Dispatch | None = None
    """What stores do for the schedule; None: what they do for the running jobs."""


@dataclass(frozen=True, slots=True)
class Last:
    """What of the last plan the solver starts from: prices, and the slots that they are for. It is not trusted."""

    certificate: PlanCertificate | None
    start_s: int
    slot_s: int
    slots: int

    @staticmethod
    def of(plan: Plan | None) -> "Last | None":
        """Take it from a plan of one site."""
        if plan is None:
            return None
        return Last(plan.certificate, plan.snapshot.start_s, plan.snapshot.slot_s, plan.snapshot.slots)


class Opens(Protocol):
    """The stores as the steps of the chain need them: their model, what they do for the running jobs, and the room."""

    model: StoreModel
    dispatch: Dispatch

    def opened(self, built: Built, dispatch: Dispatch | None) -> Built:
        """Return the problem with the capacities that a dispatch leaves (None: the one for the running jobs)."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """What every step of the fallback chain gets."""

    built: Built
    kept: Kept
    settings: RoundSettings
    began_s: float
    deadline_s: float
    """Both on the monotonic clock, which no step of the wall clock moves."""
    stop: Callable[[], bool]
    log: Log
    last: Last | None
    start_s: int
    planned: tuple[Planned, ...]
    stores: Opens

    @property
    def solved_by_s(self) -> float:
        """When the solver must end, so that there is time to place what it found."""
        return self.deadline_s - _PLACE_SHARE * max(0.0, self.deadline_s - self.began_s)

    def placing(self) -> Callable[[], bool]:
        """Return what says when the time for placing is up, from now on; compiling the solver does not cost it."""
        until_s = max(self.deadline_s, time.monotonic() + self.deadline_s - self.solved_by_s)
        return lambda: self.stop() or time.monotonic() >= until_s


@dataclass(frozen=True, slots=True)
class Ready:
    """A site as the planner has looked at it: its problem, its stores, and what must stop of what runs."""

    ground: Ground
    built: Built
    kept: Kept
    stores: Stores


def get_ready(snapshot: Snapshot, settings: RoundSettings, log: Log, stops: Mapping[str, int] | None = None) -> Ready:
    """Return the problem of a snapshot and how its running jobs go on; `stops` are those of other sites."""
    ground = Ground(snapshot)
    built = build(snapshot, ground)
    stores = Stores(snapshot, built, ground, settings.lp_solver, log)
    kept = keep_running(ground, stores.covering(built))
    every = {**(stops or {}), **kept.stops}
    if every:
        before, built = built, build(snapshot, ground, every)
        kept = Kept(_rekeyed(before, built, kept), kept.stops, kept.broken)
    if kept.stops:
        log.warning("shed", jobs=",".join(sorted(kept.stops)), zones=",".join(_zones(kept)))
    return Ready(ground, built, kept, stores)


def make_plan(
    snapshot: Snapshot,
    settings: RoundSettings,
    seconds: float,
    *,
    created_s: int,
    log: Log,
    stop: Callable[[], bool] = lambda: False,
    previous: Plan | None = None,
) -> Plan:
    """Return a plan that passed the checker; `Unplannable` when there is none. Solves for about `seconds`.

    `previous` is a starting point for the solver and is not trusted.
    """
    began = time.monotonic()
    ready = get_ready(snapshot, settings, log)
    built, stores, kept = ready.built, ready.stores, ready.kept
    until_s = began + seconds
    warm = Last.of(previous)
    task = Task(built, kept, settings, began, until_s, stop, log, warm, snapshot.start_s, snapshot.planned, stores)
    last: object = NOTHING
    for name, draft in drafts(task):
        placed = place(
            {snapshot.site.name: ready.ground},
            stores.opened(built, draft.dispatch),
            draft.schedule,
            late=task.placing(),
            settings=settings,
            fill=name != "kept",
        )
        dispatch = stores.settled(built, placed, draft.dispatch)
        plan = assemble(
            snapshot,
            stores.opened(built, dispatch),
            placed,
            kept,
            status=status_of(draft, placed),
            bound=draft.bound,
            created_s=created_s,
            certificate=draft.certificate,
            notes=draft.notes + shed_note(kept),
            solve_s=round(time.monotonic() - began, 3),
            storages=stores.model.plans(dispatch),
            storage_cost=math.ceil(stores.model.cost(dispatch)),
        )
        broken = verify_plan(plan)
        if not broken:
            return plan
        last = broken[0]
        log.error("draft_refused", stage=name, reason=last, violations=len(broken))
    raise Unplannable(f"no plan holds every limit: {last}")


def drafts(task: Task) -> Iterator[tuple[str, Draft]]:
    """Yield drafts from the best step to the simplest, each only when it is asked for."""
    for step in (_solved, _greedy, _kept):
        draft = _attempt(step, task)
        if draft is not None:
            yield step.__name__.strip("_"), draft


def _attempt(step: Callable[[Task], Draft], task: Task) -> Draft | None:
    """Run one step; whatever goes wrong in it is logged, and the next simpler step takes over."""
    try:
        return step(task)
    except Exception as error:  # noqa: BLE001 - a fault in a solver must not leave the site without a plan
        reason = f"{type(error).__name__}: {error}"
        task.log.error("stage_failed", stage=step.__name__.strip("_"), reason=reason)
        return None


def status_of(draft: Draft, placed: Placed) -> str:
    """A plan is optimal only when the solver proved it and placement changed nothing."""
    same = np.array_equal(draft.schedule.option, placed.schedule.option)
    if draft.status == "optimal" and not (same and np.array_equal(draft.schedule.start, placed.schedule.start)):
        return "feasible"
    return draft.status


def _zones(kept: Kept) -> tuple[str, ...]:
    return tuple(sorted({zone for zones in kept.broken.values() for zone in zones}))


def shed_note(kept: Kept) -> tuple[str, ...]:
    if not kept.stops:
        return ()
    return (
        f"{len(kept.stops)} running jobs stop because {', '.join(_zones(kept))} cannot carry what runs even in its "
        "lowest modes; jobs that may be preempted go first, then those of least weight, then the youngest",
    )


def _rekeyed(before: Built, built: Built, kept: Kept) -> Schedule:
    """Return the kept schedule in the options of a problem rebuilt with stops; jobs shed later get the lowest mode."""
    schedule = Schedule.empty(built.problem.jobs)
    for number, job in enumerate(built.jobs):
        options = built.problem.options_of(number)
        option = int(kept.schedule.option[number])
        if option >= 0:
            schedule.option[number] = options[option - before.problem.options_of(number)[0]]
        elif kept.stops.get(job.job_id, 0) > 0:
            schedule.option[number] = min(options, key=lambda o: built.choices[o].gpu_power_w)
        if schedule.option[number] >= 0:
            schedule.start[number] = 0
    return schedule


def _solved(task: Task) -> Draft:
    from powerhall_optimizer.planning.storage_alternation import Answer, Chance, alternate, plain
    from powerhall_optimizer.solve.jit_warmup import compile_solver
    from powerhall_optimizer.storage.best_response import compile_best_response

    problem, stores = task.built.problem, task.stores

    def call(late_s: float) -> Answer:
        chance = Chance(
            max(0.1, task.solved_by_s + late_s - time.monotonic()),
            task.settings,
            _warm(task),
            _as_planned(task),
            task.stop,
            lambda line: task.log.info("solver", line=line),
        )
        if stores.model.stores:
            floor = usage_of(problem, task.kept.schedule)
            return alternate(task.built, stores.model, floor, stores.dispatch, chance)
        return plain(problem, chance)

    def prepare() -> None:
        compile_solver()
        if stores.model.stores:
            compile_best_response()

    answer = guarded(prepare, call, deadline_s=task.solved_by_s, grace_s=_GRACE_S, stop=task.stop)
    opened = stores.opened(task.built, answer.dispatch).problem
    if (broken := next(check_schedule(opened, answer.schedule), None)) is not None:
        raise PowerhallError(f"the solver's schedule breaks a limit: {broken}")
    certificate = from_prices(problem, answer.certificate)
    certificate = msgspec.structs.replace(certificate, stored=answer.worth)
    bound = proven_bound(problem, stores.model, certificate)
    status, notes = ("optimal", ("optimality proven by CP-SAT",)) if answer.optimal else ("feasible", ())
    return Draft(answer.schedule, status, bound, certificate, notes, answer.dispatch)


def _warm(task: Task) -> Certificate | None:
    """Return the last plan's prices for this problem's slots; what does not fit any more is left out."""
    last = task.last
    if last is None or last.certificate is None or last.slot_s != task.built.problem.slot_s:
        return None
    shift = (task.start_s - last.start_s) // last.slot_s
    if not 0 <= shift < last.slots:
        return None
    try:
        return to_prices(task.built.problem, last.certificate, shift)
    except (PowerhallError, OverflowError, ValueError) as error:
        task.log.warning("warm_start_refused", reason=error)
        return None


def _as_planned(task: Task) -> Schedule:
    """Return what runs, and what the last plan foresaw for the jobs that wait."""
    built = task.built
    schedule = Schedule(task.kept.schedule.option.copy(), task.kept.schedule.start.copy())
    planned = {entry.job_id: entry for entry in task.planned}
    for number, job in enumerate(built.jobs):
        entry = planned.get(job.job_id)
        if entry is None or schedule.option[number] >= 0:
            continue
        for option in built.problem.options_of(number):
            choice = built.choices[option]
            if (choice.site, choice.hall, choice.mode) == (entry.site or choice.site, entry.hall, entry.mode):
                schedule.option[number] = option
                schedule.start[number] = (entry.start_s - task.start_s) // built.problem.slot_s
                break
    return schedule


def _greedy(task: Task) -> Draft:
    problem = task.stores.opened(task.built, None).problem
    schedule = fill_by_density(problem, task.kept.schedule, max(task.deadline_s, time.monotonic() + 5.0))
    note = "fallback: planned by the plain greedy, without the solver"
    return Draft(schedule, "fallback", _trivial(task), notes=(note,))


def _trivial(task: Task) -> int:
    return proven_bound(task.built.problem, task.stores.model, None)


def _kept(task: Task) -> Draft:
    note = "fallback: keeps what runs and starts nothing new"
    return Draft(task.kept.schedule, "fallback", _trivial(task), notes=(note,))
