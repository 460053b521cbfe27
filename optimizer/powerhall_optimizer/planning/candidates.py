"""Candidate plans before placement, each simpler than the one before: solved, greedy, running jobs only."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import msgspec

from powerhall.plan.period_budget import PeriodBudget
from powerhall.plan.plan import Certificate, Plan, Planned
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.placement.placer import PlacedSchedule
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.budget_prices import with_budget_prices
from powerhall_optimizer.planning.last_plan import LastPlan
from powerhall_optimizer.planning.round_clock import TimePlan
from powerhall_optimizer.planning.running_jobs import RetainedJobs
from powerhall_optimizer.problem.arrays import PriceCertificate, Problem, Schedule
from powerhall_optimizer.problem.certificate import make_certificate, read_certificate, without_lost_blocks
from powerhall_optimizer.problem.schedule_check import check_schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem
from powerhall_optimizer.problem.standing import HeldProblem
from powerhall_optimizer.problem.usage import usage_of
from powerhall_optimizer.solve.child_process import guarded
from powerhall_optimizer.solve.density_greedy import fill_by_density
from powerhall_optimizer.storage.model import Dispatch, StorageModel

__all__ = ["CandidatePlan", "PlanningStep", "PlanningTask", "WarmStart", "candidate_plans", "cut_short"]

_GRACE_SHARE, _GRACE_S = 0.04, 1.0
"""How long the solver may overrun, of the round's time and at least, before what it has sent is taken."""
_FIRST_GRACE_S = 20.0
"""The same before it has sent anything: until its first prices, and with storage until it is done."""
_GREEDY_SHARE = 0.1
"""Part of the round's time for the plain greedy, where the solver has failed late."""


class PlanningStep(StrEnum):
    """The steps of the fallback chain, the best first; logs name them."""

    SOLVED = "solved"
    GREEDY = "greedy"
    KEPT = "kept"
    """Continue running jobs, start nothing new."""


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
    work: dict[str, int] = field(default_factory=dict)
    cut_short: tuple[str, ...] = ()


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
    time: TimePlan
    seconds: float
    """Length of the round."""
    stop: Callable[[], bool]
    log: Log
    warm_start: WarmStart | None
    start_s: int
    planned: tuple[Planned, ...]
    storage: PlannedStorage
    last: LastPlan | None
    """What the last plan decided and still can be."""
    prove: Callable[[Certificate | None], int]
    """Returns the bound that a certificate proves for every plan of the task, by the checker's code."""
    start: Schedule | None = None
    """The best of the plans to start from, where one holds."""
    budgets: tuple[PeriodBudget, ...] = ()
    """Budgets over a period, whose prices lower the bound."""

    def held(self, problem: Problem, step: PlanningStep) -> HeldProblem | None:
        """Return the problem in which changes of the last plan cost; None where nothing of it counts."""
        return None if self.last is None or step is PlanningStep.KEPT else HeldProblem(problem, self.last.standing)

    def late(self) -> bool:
        """Whether the time for placement is over."""
        return self.stop() or time.monotonic() >= self.time.placed_by_s


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
        task.log.error("stage_failed", stage=step, reason=f"{type(error).__name__}: {error}")
        return None


def cut_short(candidate: CandidatePlan, placed: PlacedSchedule) -> tuple[str, ...]:
    """Return the stages that the deadline cut short, placement included."""
    return (*candidate.cut_short, *(("placement",) if placed.cut else ()))


def _solved(task: PlanningTask) -> CandidatePlan:
    from powerhall_optimizer.planning.storage_alternation import (
        SolvedSchedule,
        SolveRequest,
        solve_with_storage,
        solve_without_storage,
        without_storage,
    )

    problem, storage = task.built.problem, task.storage

    def call(send: Callable[[SolvedSchedule], None]) -> SolvedSchedule:
        request = SolveRequest(
            max(0.1, task.time.solved_by_s - time.monotonic()),
            task.time.solve_work_s,
            task.settings,
            _warm(task),
            _as_planned(task),
            None if task.last is None else task.last.standing,
            task.stop,
            lambda line: task.log.info("solver", line=line),
            lambda result: send(replace(without_storage(result), cut_short=("solver",))),
        )
        if storage.model.units:
            running_usage = usage_of(problem, task.retained.schedule)
            return solve_with_storage(task.built, storage.model, running_usage, storage.dispatch, request)
        return solve_without_storage(problem, request)

    answer = guarded(
        call,
        deadline_s=task.time.solved_by_s,
        grace_s=max(_GRACE_S, _GRACE_SHARE * task.seconds),
        first_grace_s=_FIRST_GRACE_S,
        stop=task.stop,
    )
    if answer.cut_short:
        task.log.warning("cut_short", stages=",".join(answer.cut_short))
    opened = storage.with_capacities(task.built, answer.dispatch).problem
    if (broken := next(check_schedule(opened, answer.schedule), None)) is not None:
        raise PowerhallError(f"the solver's schedule breaks a limit: {broken}")
    certificate = make_certificate(problem, answer.certificate)
    certificate = msgspec.structs.replace(certificate, stored=answer.stored_value)
    certificate = with_budget_prices(certificate, task.budgets, task.prove)
    bound = task.prove(certificate)
    return CandidatePlan(
        answer.schedule, "feasible", bound, certificate, (), answer.dispatch, answer.work, answer.cut_short
    )


def _warm(task: PlanningTask) -> PriceCertificate | None:
    """Return the last plan's prices for this problem's slots; None where they do not fit any more."""
    last = task.warm_start
    if last is None or last.certificate is None or last.slot_s != task.built.problem.slot_s:
        return None
    shift = (task.start_s - last.start_s) // last.slot_s
    if not 0 <= shift < last.slots:
        return None
    try:
        return read_certificate(task.built.problem, without_lost_blocks(task.built.problem, last.certificate), shift)
    except (PowerhallError, OverflowError, ValueError) as error:
        task.log.warning("warm_start_refused", reason=error)
        return None


def _as_planned(task: PlanningTask) -> Schedule:
    """Return the schedule to start from: the retained jobs, and the last plan's decisions for the waiting jobs."""
    if task.start is not None:
        return task.start
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
    until_s = max(task.time.solved_by_s, time.monotonic() + _GREEDY_SHARE * task.seconds)
    schedule = fill_by_density(problem, task.retained.schedule, until_s)
    return CandidatePlan(schedule, "fallback", task.prove(None), notes=(texts.GREEDY_NOTE,))


def _kept(task: PlanningTask) -> CandidatePlan:
    return CandidatePlan(task.retained.schedule, "fallback", task.prove(None), notes=(texts.KEPT_NOTE,))
