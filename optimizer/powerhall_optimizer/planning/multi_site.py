"""Plan several sites together: one joint problem, placed and assembled as one verified plan per site.

Data residency is a filter: a job has options only at the sites where it may run, and the checker checks it again.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from powerhall.jobs import Job
from powerhall.plan.multi_site import MultiSitePlan, multi_site_hash
from powerhall.plan.plan import PLAN_VERSION, Plan, Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.placement.place import place
from powerhall_optimizer.placement.placer import PlacedSchedule
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.adopt import adopted, drafts
from powerhall_optimizer.planning.assemble import assemble, proven_status
from powerhall_optimizer.planning.candidates import (
    CandidatePlan,
    PlanningStep,
    PlanningTask,
    WarmStart,
    candidate_plans,
    cut_short,
)
from powerhall_optimizer.planning.checked import check_encoded
from powerhall_optimizer.planning.cluster_bound import cluster_bound
from powerhall_optimizer.planning.compiling import compile_when_cold
from powerhall_optimizer.planning.last_plan import LastPlan
from powerhall_optimizer.planning.plan_changes import with_changes_of_sites
from powerhall_optimizer.planning.plan_notes import shed_note, time_notes
from powerhall_optimizer.planning.planner import PreparedSite, Unplannable, prepare_site
from powerhall_optimizer.planning.round_clock import RoundClock
from powerhall_optimizer.planning.running_jobs import RetainedJobs
from powerhall_optimizer.planning.site_storage import SiteStorage
from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.problem.certificate import site_certificate
from powerhall_optimizer.problem.eligibility import may_run_at
from powerhall_optimizer.problem.join_sites import JointProblem, join_problems
from powerhall_optimizer.problem.site_problem import BuiltProblem, build_problem
from powerhall_optimizer.storage.joint import joint_storage
from powerhall_optimizer.storage.model import Dispatch, with_dispatch
from powerhall_optimizer.verify.multi_site import verify_multi_site
from powerhall_optimizer.verify.value import proven_bound

__all__ = ["make_multi_site_plan", "warm_start_of"]

replace = msgspec.structs.replace
T = TypeVar("T")


def warm_start_of(plan: MultiSitePlan | None) -> WarmStart | None:
    """Return the warm start of the solver from the last plan of the sites."""
    if plan is None:
        return None
    s = plan.plans[0].snapshot
    return WarmStart(plan.certificate, s.start_s, s.slot_s, s.slots)


def make_multi_site_plan(
    snapshots: Sequence[Snapshot],
    settings: RoundSettings,
    seconds: float,
    *,
    created_s: int,
    log: Log,
    stop: Callable[[], bool] = lambda: False,
    previous: MultiSitePlan | None = None,
    starts: Sequence[MultiSitePlan] = (),
    clock: RoundClock | None = None,
) -> MultiSitePlan:
    """Return plans of all sites that passed the checker; each snapshot must have the whole queue.

    `Unplannable` when there are none; `previous` is a starting point and is not trusted, and so are `starts`.
    """
    if parts := [job.job_id for job in snapshots[0].jobs if job.gpu_share is not None]:
        raise Rejected.field("snapshot", "gpu_share", parts[0], "must not be asked for with several sites")
    clock = RoundClock.start(seconds) if clock is None else clock
    compiled_s = compile_when_cold(log, stop)
    clock = clock.later(compiled_s)
    prepared = _prepare_sites(snapshots, settings, log)
    joined = join_problems([s.site.name for s in snapshots], [r.built for r in prepared])
    storage = _JointStorage(joined, [r.storage for r in prepared])
    retained = RetainedJobs(
        joined.schedule([r.retained.schedule for r in prepared]),
        {job: slots for r in prepared for job, slots in r.retained.stops.items()},
        {job: zones for r in prepared for job, zones in r.retained.broken.items()},
    )
    first = snapshots[0]
    clock.mark("prepare")
    zones = sum(len(r.conditions.index.kinds) for r in prepared)
    times = clock.plan(joined.built.problem, zones, settings.work_rate)
    warm = warm_start_of(previous)
    task = PlanningTask(
        joined.built,
        retained,
        settings,
        times,
        seconds,
        stop,
        log,
        warm,
        first.start_s,
        first.planned,
        storage,
        LastPlan.of(previous, storage.with_capacities(joined.built, None), retained.schedule, settings, first.start_s),
        lambda certificate: cluster_bound(settings.scheduler, snapshots, certificate, retained.stops, log, joint=True),
        next((found.schedule for found in adopted(starts, storage.with_capacities(joined.built, None))), None),
    )
    last: object = texts.NOTHING
    for step, candidate in candidate_plans(task):
        clock.mark("solve")
        conditions_of = {s.site.name: r.conditions for s, r in zip(snapshots, prepared, strict=True)}
        opened = storage.with_capacities(joined.built, candidate.dispatch)
        placed = place(
            conditions_of,
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
        for draft in drafts(starts, opened, placed):
            writer = _Writer(snapshots, prepared, joined.built, draft, settings, log)
            notes = time_notes(cut_short(candidate, placed), compiled_s)
            plan = writer.plan(candidate, storage.split(candidate.dispatch), created_s, clock.began_s, notes)
            if task.last is not None and previous is not None:
                plan = with_changes_of_sites(plan, previous, task.last, candidate.schedule, settings)
            clock.mark("explain")
            _, broken = check_encoded(plan, verify_multi_site)
            clock.mark("verify")
            if not broken:
                return plan
            last = broken[0]
            log.error("draft_refused", stage=step, reason=last, violations=len(broken))
    raise Unplannable(f"no plan holds every limit: {last}")


class _JointStorage:
    """The storage units of all sites as those of the joint problem."""

    def __init__(self, joined: JointProblem, parts: Sequence[SiteStorage]) -> None:
        self.parts = parts
        self.model = joint_storage(joined, [part.model for part in parts])
        self.dispatch: Dispatch = tuple(row for part in parts for row in part.dispatch)

    def with_capacities(self, built: BuiltProblem, dispatch: Dispatch | None) -> BuiltProblem:
        """Return the joint problem with the capacities that a dispatch leaves (None: the one for the running jobs)."""
        return with_dispatch(built, self.model, self.dispatch if dispatch is None else dispatch)

    def split(self, dispatch: Dispatch | None) -> list[Dispatch]:
        """Return each site's part of a dispatch."""
        rows = iter(self.dispatch if dispatch is None else dispatch)
        return [tuple(next(rows) for _ in part.model.units) for part in self.parts]


def _prepare_sites(snapshots: Sequence[Snapshot], settings: RoundSettings, log: Log) -> list[PreparedSite]:
    """Prepare every site; stops of one site change the jobs' rows in the problems of the others."""
    prepared = [prepare_site(s, settings, log) for s in snapshots]
    stops = {job: slots for r in prepared for job, slots in r.retained.stops.items()}
    if not stops or len(snapshots) == 1:
        return prepared
    return [prepare_site(s, settings, Log(quiet=True), stops) for s in snapshots]


@dataclass(frozen=True, slots=True)
class _Writer:
    """Assembles the placed schedule as one plan per site and the plan of all sites."""

    snapshots: Sequence[Snapshot]
    prepared: Sequence[PreparedSite]
    joint: BuiltProblem
    placed: PlacedSchedule
    settings: RoundSettings
    log: Log

    def plan(
        self,
        candidate: CandidatePlan,
        dispatches: Sequence[Dispatch],
        created_s: int,
        began_s: float,
        notes: tuple[str, ...],
    ) -> MultiSitePlan:
        """Return the plan of all sites, not yet verified."""
        homes = _homes(self.snapshots, self.joint, self.placed)
        value = self.placed.schedule.value(self.joint.problem)
        parts: list[Plan] = []
        for s, one, before in zip(self.snapshots, self.prepared, dispatches, strict=True):
            numbers = [n for n, home in enumerate(homes) if home == s.site.name]
            own = replace(s, jobs=tuple(s.jobs[n] for n in numbers))
            built = build_problem(own, one.conditions, one.retained.stops)
            part = _part(numbers, self.joint, built, self.placed)
            storage = SiteStorage(own, built, one.conditions, self.settings.lp_solver, self.log)
            dispatch = storage.final_dispatch(built, part, before)
            value -= math.ceil(one.storage.model.cost(dispatch))
            certificate = candidate.certificate
            if certificate is not None:
                certificate = site_certificate(
                    certificate,
                    self.joint.problem,
                    s.site.name,
                    [storage.name for storage in s.site.storages],
                    self.joint.unit_usd / built.unit_usd,
                )
            plan = assemble(
                own,
                storage.with_capacities(built, dispatch),
                part,
                one.retained,
                status="fallback" if candidate.status == "fallback" else "feasible",
                bound=proven_bound([own], certificate, one.retained.stops),
                created_s=created_s,
                certificate=certificate,
                notes=(*candidate.notes, *shed_note(one.retained)),
                storages=storage.model.plans(dispatch),
                storage_cost=math.ceil(storage.model.cost(dispatch)),
            )
            parts.append(plan)
        gap = (candidate.bound - value) / candidate.bound if candidate.bound > 0 else 0.0
        solve_s = round(time.monotonic() - began_s, 3)
        jobs = self.snapshots[0].jobs
        return MultiSitePlan(
            PLAN_VERSION,
            multi_site_hash(self.snapshots, jobs),
            created_s,
            proven_status(candidate.status, value, candidate.bound),  # type: ignore[arg-type]
            value,
            candidate.bound,
            gap,
            jobs,
            tuple(self._noted(part, gap, solve_s) for part in parts),
            candidate.certificate,
            (*candidate.notes, *notes),
            solve_s,
            candidate.work,
            cut_short(candidate, self.placed),
        )

    def _noted(self, part: Plan, gap: float, solve_s: float) -> Plan:
        others = [s.site.name for s in self.snapshots if s.site.name != part.snapshot.site.name]
        note = texts.together_text(others, gap)
        return replace(part, notes=(*part.notes, note), solve_s=solve_s)


def _homes(snapshots: Sequence[Snapshot], built: BuiltProblem, placed: PlacedSchedule) -> list[str]:
    """Return for each job the site whose plan contains it."""
    return [_home(snapshots, built, placed, number, job) for number, job in enumerate(built.jobs)]


def _home(snapshots: Sequence[Snapshot], built: BuiltProblem, placed: PlacedSchedule, number: int, job: Job) -> str:
    option = int(placed.schedule.option[number])
    if option >= 0:
        return built.choices[option].site
    options = built.problem.options_of(number)
    if job.state == "waiting" and len(options):
        best = max(options, key=lambda o: (int(built.problem.values(number, o).max()), -o))
        return built.choices[best].site
    sites = [s.site.name for s in snapshots]
    return next((name for name in sites if may_run_at(job, name)), sites[0])


def _part(numbers: Sequence[int], joint: BuiltProblem, built: BuiltProblem, placed: PlacedSchedule) -> PlacedSchedule:
    """Return one site's share of the placed schedule, in the numbers of its own problem."""
    schedule = Schedule.empty(built.problem.jobs)
    index = {number: own for own, number in enumerate(numbers)}
    for number, own in index.items():
        option = int(placed.schedule.option[number])
        if option < 0:
            continue
        wanted = joint.choices[option]
        schedule.option[own] = next(o for o in built.problem.options_of(own) if built.choices[o] == wanted)
        schedule.start[own] = placed.schedule.start[number]
    return PlacedSchedule(
        schedule, _mine(placed.nodes, index), _mine(placed.left_out, index), _mine(placed.moved, index)
    )


def _mine(entries: Mapping[int, T], index: Mapping[int, int]) -> dict[int, T]:
    return {index[number]: entry for number, entry in entries.items() if number in index}
