"""From a snapshot to a verified plan: retain running jobs, solve, place, verify; each step has a simpler fallback."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec
import numpy as np

from powerhall.plan.plan import Certificate, Plan, Planned, Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.place import place
from powerhall_optimizer.placement.placer import PlacedSchedule
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.assemble import assemble
from powerhall_optimizer.planning.plan_value import proven_bound
from powerhall_optimizer.planning.running_jobs import RetainedJobs, retain_running_jobs
from powerhall_optimizer.planning.site_storage import SiteStorage
from powerhall_optimizer.problem.arrays import PriceCertificate, Schedule
from powerhall_optimizer.problem.certificate import make_certificate, read_certificate
from powerhall_optimizer.problem.schedule_check import check_schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem, build_problem
from powerhall_optimizer.problem.usage import usage_of
from powerhall_optimizer.solve.child_process import guarded
from powerhall_optimizer.solve.density_greedy import fill_by_density
from powerhall_optimizer.storage.model import Dispatch, StorageModel
from powerhall_optimizer.verify.plan import verify_plan

__all__ = [
    "CandidatePlan",
    "PlanningStep",
    "PlanningTask",
    "PreparedSite",
    "Unplannable",
    "WarmStart",
    "candidate_plans",
    "make_plan",
    "prepare_site",
]
__all__ += ["shed_note", "status_of"]

_PLACE_SHARE = 0.15
"""Part of a round's time that is kept for placing."""
_GRACE_S = 20.0
"""How long the solver may overrun: it compiles on its first run, and ends a step that it has begun."""


class PlanningStep(StrEnum):
    """The steps of the fallback chain, the best first; logs name them."""

    SOLVED = "solved"
    GREEDY = "greedy"
    KEPT = "kept"
    """Continue running jobs, start nothing new."""


class Unplannable(PowerhallError):  # noqa: N818 - named after its meaning
    """No plan passed the checker, not even the one that starts nothing new; the text names the first broken limit."""


@dataclass(frozen=True, slots=True)
class CandidatePlan:
    """A schedule before placement, with its proven bound."""

    schedule: Schedule
    status: str
    bound: int
    certificate: Certificate | None = None
    notes: tuple[str, ...] = ()
    dispatch: Dispatch | None = None
    """Storage dispatch for the schedule; None: the one for the running jobs."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Starting point from the last plan: prices and their slots. It is not trusted."""

    certificate: Certificate | None
    start_s: int
    slot_s: int
    slots: int

    @staticmethod
    def of(plan: Plan | None) -> "WarmStart | None":
        """Return the warm start from a plan of one site."""
        if plan is None:
            return None
        return WarmStart(plan.certificate, plan.snapshot.start_s, plan.snapshot.slot_s, plan.snapshot.slots)


class PlannedStorage(Protocol):
    """Storage as the planning steps use it: model, dispatch for the running jobs, resulting capacities."""

    model: StorageModel
    dispatch: Dispatch

    def with_capacities(self, built: BuiltProblem, dispatch: Dispatch | None) -> BuiltProblem:
        """Return the problem with the capacities that a dispatch leaves (None: the one for the running jobs)."""
        ...


@dataclass(frozen=True, slots=True)
class PlanningTask:
    """Inputs of every step of the fallback chain."""

    built: BuiltProblem
    retained: RetainedJobs
    settings: RoundSettings
    began_s: float
    deadline_s: float
    """Both on the monotonic clock."""
    stop: Callable[[], bool]
    log: Log
    warm_start: WarmStart | None
    start_s: int
    planned: tuple[Planned, ...]
    storage: PlannedStorage

    @property
    def solved_by_s(self) -> float:
        """When the solver must end, to leave time for placement."""
        return self.deadline_s - _PLACE_SHARE * max(0.0, self.deadline_s - self.began_s)

    def placing(self) -> Callable[[], bool]:
        """Return a function that is true after the time for placement, which solver compilation does not use up."""
        until_s = max(self.deadline_s, time.monotonic() + self.deadline_s - self.solved_by_s)
        return lambda: self.stop() or time.monotonic() >= until_s


@dataclass(frozen=True, slots=True)
class PreparedSite:
    """A site prepared for planning: conditions, problem, retained running jobs, storage."""

    conditions: SiteConditions
    built: BuiltProblem
    retained: RetainedJobs
    storage: SiteStorage


def prepare_site(
    snapshot: Snapshot, settings: RoundSettings, log: Log, stops: Mapping[str, int] | None = None
) -> PreparedSite:
    """Return the problem of a snapshot with its retained jobs; `stops` are the shed jobs of other sites."""
    conditions = SiteConditions(snapshot)
    built = build_problem(snapshot, conditions)
    storage = SiteStorage(snapshot, built, conditions, settings.lp_solver, log)
    retained = retain_running_jobs(conditions, storage.with_room_for_running_jobs(built))
    every = {**(stops or {}), **retained.stops}
    if every:
        before, built = built, build_problem(snapshot, conditions, every)
        retained = RetainedJobs(_rekeyed(before, built, retained), retained.stops, retained.broken)
    if retained.stops:
        log.warning("shed", jobs=",".join(sorted(retained.stops)), zones=",".join(shed_zones(retained)))
    return PreparedSite(conditions, built, retained, storage)


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
    prepared = prepare_site(snapshot, settings, log)
    built, storage, retained = prepared.built, prepared.storage, prepared.retained
    until_s = began + seconds
    warm = WarmStart.of(previous)
    task = PlanningTask(
        built, retained, settings, began, until_s, stop, log, warm, snapshot.start_s, snapshot.planned, storage
    )
    last: object = texts.NOTHING
    for step, candidate in candidate_plans(task):
        placed = place(
            {snapshot.site.name: prepared.conditions},
            storage.with_capacities(built, candidate.dispatch),
            candidate.schedule,
            late=task.placing(),
            settings=settings,
            fill=step is not PlanningStep.KEPT,
        )
        dispatch = storage.final_dispatch(built, placed, candidate.dispatch)
        plan = assemble(
            snapshot,
            storage.with_capacities(built, dispatch),
            placed,
            retained,
            status=status_of(candidate, placed),
            bound=candidate.bound,
            created_s=created_s,
            certificate=candidate.certificate,
            notes=candidate.notes + shed_note(retained),
            solve_s=round(time.monotonic() - began, 3),
            storages=storage.model.plans(dispatch),
            storage_cost=math.ceil(storage.model.cost(dispatch)),
        )
        broken = verify_plan(plan)
        if not broken:
            return plan
        last = broken[0]
        log.error("draft_refused", stage=step, reason=last, violations=len(broken))
    raise Unplannable(f"no plan holds every limit: {last}")


def candidate_plans(task: PlanningTask) -> Iterator[tuple[PlanningStep, CandidatePlan]]:
    """Yield candidates from the best step to the simplest, each computed on demand."""
    for step in PlanningStep:
        candidate = _attempt(step, task)
        if candidate is not None:
            yield step, candidate


def _attempt(step: PlanningStep, task: PlanningTask) -> CandidatePlan | None:
    """Run one step; a failure is logged, and the next simpler step follows."""
    runs = {PlanningStep.SOLVED: _solved, PlanningStep.GREEDY: _greedy, PlanningStep.KEPT: _kept}
    try:
        return runs[step](task)
    except Exception as error:  # noqa: BLE001 - a fault in a solver must not leave the site without a plan
        reason = f"{type(error).__name__}: {error}"
        task.log.error("stage_failed", stage=step, reason=reason)
        return None


def status_of(candidate: CandidatePlan, placed: PlacedSchedule) -> str:
    """A plan is optimal only when the solver proved it and placement changed nothing."""
    same = np.array_equal(candidate.schedule.option, placed.schedule.option)
    if candidate.status == "optimal" and not (same and np.array_equal(candidate.schedule.start, placed.schedule.start)):
        return "feasible"
    return candidate.status


def shed_zones(retained: RetainedJobs) -> tuple[str, ...]:
    """Return the names of the limits for which running jobs stop."""
    return tuple(sorted({str(resource) for broken in retained.broken.values() for resource in broken}))


def shed_note(retained: RetainedJobs) -> tuple[str, ...]:
    """Return the plan's note of running jobs that are shed, if there are any."""
    return (texts.shed_note_text(len(retained.stops), shed_zones(retained)),) if retained.stops else ()


def _rekeyed(before: BuiltProblem, built: BuiltProblem, retained: RetainedJobs) -> Schedule:
    """Return the retained schedule in the options of a problem with stops; jobs shed later get the lowest mode."""
    schedule = Schedule.empty(built.problem.jobs)
    for number, job in enumerate(built.jobs):
        options = built.problem.options_of(number)
        option = int(retained.schedule.option[number])
        if option >= 0:
            schedule.option[number] = options[option - before.problem.options_of(number)[0]]
        elif retained.stops.get(job.job_id, 0) > 0:
            schedule.option[number] = min(options, key=lambda o: built.choices[o].gpu_power_w)
        if schedule.option[number] >= 0:
            schedule.start[number] = 0
    return schedule


def _solved(task: PlanningTask) -> CandidatePlan:
    from powerhall_optimizer.planning.storage_alternation import (
        SolvedSchedule,
        SolveRequest,
        solve_with_storage,
        solve_without_storage,
    )
    from powerhall_optimizer.solve.jit_warmup import compile_solver
    from powerhall_optimizer.storage.best_response import compile_best_response

    problem, storage = task.built.problem, task.storage

    def call(late_s: float) -> SolvedSchedule:
        request = SolveRequest(
            max(0.1, task.solved_by_s + late_s - time.monotonic()),
            task.settings,
            _warm(task),
            _as_planned(task),
            task.stop,
            lambda line: task.log.info("solver", line=line),
        )
        if storage.model.units:
            running_usage = usage_of(problem, task.retained.schedule)
            return solve_with_storage(task.built, storage.model, running_usage, storage.dispatch, request)
        return solve_without_storage(problem, request)

    def prepare() -> None:
        compile_solver()
        if storage.model.units:
            compile_best_response()

    answer = guarded(prepare, call, deadline_s=task.solved_by_s, grace_s=_GRACE_S, stop=task.stop)
    opened = storage.with_capacities(task.built, answer.dispatch).problem
    if (broken := next(check_schedule(opened, answer.schedule), None)) is not None:
        raise PowerhallError(f"the solver's schedule breaks a limit: {broken}")
    certificate = make_certificate(problem, answer.certificate)
    certificate = msgspec.structs.replace(certificate, stored=answer.stored_value)
    bound = proven_bound(problem, storage.model, certificate)
    status, notes = ("optimal", (texts.OPTIMAL_NOTE,)) if answer.optimal else ("feasible", ())
    return CandidatePlan(answer.schedule, status, bound, certificate, notes, answer.dispatch)


def _warm(task: PlanningTask) -> PriceCertificate | None:
    """Return the last plan's prices for this problem's slots; None where they do not fit any more."""
    last = task.warm_start
    if last is None or last.certificate is None or last.slot_s != task.built.problem.slot_s:
        return None
    shift = (task.start_s - last.start_s) // last.slot_s
    if not 0 <= shift < last.slots:
        return None
    try:
        return read_certificate(task.built.problem, last.certificate, shift)
    except (PowerhallError, OverflowError, ValueError) as error:
        task.log.warning("warm_start_refused", reason=error)
        return None


def _as_planned(task: PlanningTask) -> Schedule:
    """Return the retained jobs, and the last plan's decisions for the waiting jobs."""
    built = task.built
    schedule = Schedule(task.retained.schedule.option.copy(), task.retained.schedule.start.copy())
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


def _greedy(task: PlanningTask) -> CandidatePlan:
    problem = task.storage.with_capacities(task.built, None).problem
    schedule = fill_by_density(problem, task.retained.schedule, max(task.deadline_s, time.monotonic() + 5.0))
    return CandidatePlan(schedule, "fallback", _trivial(task), notes=(texts.GREEDY_NOTE,))


def _trivial(task: PlanningTask) -> int:
    return proven_bound(task.built.problem, task.storage.model, None)


def _kept(task: PlanningTask) -> CandidatePlan:
    return CandidatePlan(task.retained.schedule, "fallback", _trivial(task), notes=(texts.KEPT_NOTE,))
