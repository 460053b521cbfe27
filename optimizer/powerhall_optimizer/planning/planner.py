"""From a snapshot to a verified plan: retain running jobs, solve, place, verify; each step has a simpler fallback."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.place import place
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.adopt import adopted, drafts
from powerhall_optimizer.planning.alone import with_what_ifs
from powerhall_optimizer.planning.assemble import assemble
from powerhall_optimizer.planning.candidates import (
    PlanningStep,
    PlanningTask,
    WarmStart,
    candidate_plans,
    cut_short,
)
from powerhall_optimizer.planning.checked import check_encoded
from powerhall_optimizer.planning.cluster_bound import cluster_bound
from powerhall_optimizer.planning.compiling import compile_when_cold
from powerhall_optimizer.planning.demand import keeping_peaks, less_demand
from powerhall_optimizer.planning.last_plan import LastPlan
from powerhall_optimizer.planning.plan_changes import with_changes
from powerhall_optimizer.planning.plan_notes import shed_note, shed_zones, time_notes
from powerhall_optimizer.planning.round_clock import RoundClock
from powerhall_optimizer.planning.running_jobs import RetainedJobs, retain_running_jobs
from powerhall_optimizer.planning.shared_gpus import SharedGpus
from powerhall_optimizer.planning.site_storage import SiteStorage
from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem, build_problem
from powerhall_optimizer.verify.plan import verify_plan

__all__ = ["PreparedSite", "Unplannable", "make_plan", "prepare_site"]


class Unplannable(PowerhallError):  # noqa: N818 - named after its meaning
    """No plan passed the checker, not even the one that starts nothing new; the text names the first broken limit."""


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
    starts: Sequence[Plan] = (),
    clock: RoundClock | None = None,
    keep_peaks: bool = False,
) -> Plan:
    """Return a plan that passed the checker; `Unplannable` when there is none.

    The round of `seconds` began with `clock` (None: now). Compiling is no part of them. `previous` is a starting point
    for the solver and is not trusted; nor are `starts`: where one of them holds, the plan is worth no less. With
    `keep_peaks` nothing starts that raises a peak of the month which a demand charge is for.
    """
    clock = RoundClock.start(seconds) if clock is None else clock
    compiled_s = compile_when_cold(log, stop)
    clock = clock.later(compiled_s)
    shared = SharedGpus.of(snapshot)
    prepared = prepare_site(shared.hosts, settings, log)
    built, storage, retained = prepared.built, prepared.storage, prepared.retained
    if keep_peaks and not storage.model.units:
        built = keeping_peaks(built, snapshot, retained.schedule)
    clock.mark("prepare")
    zones = len(prepared.conditions.index.kinds)
    times = clock.plan(built.problem, zones, settings.work_rate)
    warm = WarmStart.of(previous)
    task = PlanningTask(
        built,
        retained,
        settings,
        times,
        seconds,
        stop,
        log,
        warm,
        snapshot.start_s,
        shared.hosts.planned,
        storage,
        LastPlan.of(previous, storage.with_capacities(built, None), retained.schedule, settings, snapshot.start_s),
        lambda certificate: cluster_bound(settings.scheduler, [snapshot], certificate, retained.stops, log),
        next((found.schedule for found in adopted(starts, storage.with_capacities(built, None))), None),
        snapshot.period_budgets,
    )
    last: object = texts.NOTHING
    for step, candidate in candidate_plans(task):
        clock.mark("solve")
        opened = storage.with_capacities(built, candidate.dispatch)
        placed = place(
            {snapshot.site.name: prepared.conditions},
            opened,
            candidate.schedule,
            retained.schedule,
            work_s=times.place_work_s,
            late=task.late,
            settings=settings,
            fill=step is not PlanningStep.KEPT,
            held=task.held(opened.problem, step),
            nodes={} if task.last is None else task.last.nodes,
        )
        clock.mark("place")
        cut = cut_short(candidate, placed)
        for draft in drafts(starts, opened, placed):
            dispatch = storage.final_dispatch(built, draft, candidate.dispatch)
            storage_cost = math.ceil(storage.model.cost(dispatch))
            plan = assemble(
                shared.hosts,
                storage.with_capacities(built, dispatch),
                draft,
                retained,
                status=candidate.status,
                bound=candidate.bound,
                created_s=created_s,
                certificate=candidate.certificate,
                notes=candidate.notes + shed_note(retained) + time_notes(cut, compiled_s),
                solve_s=round(time.monotonic() - clock.began_s, 3),
                round_s=seconds,
                work=candidate.work,
                cut=cut,
                storages=storage.model.plans(dispatch),
                storage_cost=storage_cost,
            )
            plan = less_demand(shared.plan(with_what_ifs(plan, log), storage_cost))
            if task.last is not None and previous is not None:
                plan = with_changes(plan, previous, task.last, candidate.schedule, settings)
            clock.mark("explain")
            _, broken = check_encoded(plan, verify_plan)
            clock.mark("verify")
            if not broken:
                return plan
            last = broken[0]
            log.error("draft_refused", stage=step, reason=last, violations=len(broken))
    raise Unplannable(f"no plan holds every limit: {last}")


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
