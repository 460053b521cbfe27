"""Assemble a plan from a placed schedule: assignments, waiting jobs with reasons, zones, certificate."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from powerhall.jobs import Job
from powerhall.plan.plan import (
    PLAN_VERSION,
    Assignment,
    Certificate,
    Plan,
    Snapshot,
    StoragePlan,
    WaitCode,
    Waiting,
    ZonePlan,
    snapshot_hash,
)
from powerhall_optimizer.physics.plan_loads import Loads, plan_loads, zone_budgets
from powerhall_optimizer.placement.placer import PlacedSchedule
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.explain import Explainer, zone_prices
from powerhall_optimizer.planning.plants import plant_plans
from powerhall_optimizer.planning.running_jobs import RetainedJobs
from powerhall_optimizer.problem.certificate import read_certificate
from powerhall_optimizer.problem.site_problem import BuiltProblem

__all__ = ["assemble", "assignments", "proven_status", "restated", "with_loads"]

_MOST_EXPLAINED = 4_000
"""Options of waiting jobs that are looked into, at most: this time follows the solver, outside its deadline."""


def assignments(
    snapshot: Snapshot, built: BuiltProblem, placed: PlacedSchedule, explainer: Explainer | None = None
) -> tuple[Assignment, ...]:
    """Return the assignments in order of start, with reasons where an explainer is given."""
    found: list[Assignment] = []
    for number, nodes in placed.nodes.items():
        option = int(placed.schedule.option[number])
        choice = built.choices[option]
        start = int(placed.schedule.start[number])
        start_s = snapshot.start_s + start * snapshot.slot_s
        end_s = start_s + int(built.problem.option_duration[option]) * snapshot.slot_s
        found.append(
            Assignment(
                choice.job.job_id,
                choice.hall,
                choice.node_type,
                choice.mode,
                choice.job.gpus,
                choice.gpu_power_w,
                start_s,
                end_s,
                nodes,
                choice.running,
                _reason(number, placed, explainer),
            )
        )
    return tuple(sorted(found, key=lambda a: (a.start_s, a.job_id)))


def _reason(number: int, placed: PlacedSchedule, explainer: Explainer | None) -> str:
    """Return the text of an assignment: why it was moved, or why it is slower than it could be."""
    if number in placed.moved:
        return texts.moved_text(placed.moved[number])
    if explainer is None:
        return ""
    option, start = int(placed.schedule.option[number]), int(placed.schedule.start[number])
    slowdowns = explainer.slowdowns(explainer.built.choices[option].job.job_id, option, start)
    return texts.slowdowns_text(slowdowns, explainer.when)


def _shed(snapshot: Snapshot, retained: RetainedJobs, job_id: str) -> Waiting:
    broken = retained.broken[job_id]
    slot = retained.stops[job_id]
    stop_s = None if slot == 0 else snapshot.start_s + slot * snapshot.slot_s
    zones = tuple(dict.fromkeys(resource.zone for resource in broken))
    return Waiting(job_id, WaitCode.SHED, texts.shed_text(broken, stop_s), zones)


def _waiting(
    built: BuiltProblem, placed: PlacedSchedule, retained: RetainedJobs, explainer: Explainer
) -> Iterator[Waiting]:
    """Yield every job that does not start within the horizon, those of most value explained in depth."""
    deep = 0
    for number, job in sorted(enumerate(built.jobs), key=lambda item: -item[1].weight * item[1].gpus):
        if placed.schedule.option[number] >= 0 or job.job_id in retained.stops:
            continue
        if job.job_id in built.no_options:
            why = built.no_options[job.job_id]
            yield Waiting(job.job_id, why.code, texts.no_option_text(why))
        elif deep >= _MOST_EXPLAINED:
            yield Waiting(job.job_id, WaitCode.CAPACITY, texts.not_explained_text())
        else:
            deep += len(built.problem.options_of(number))
            yield _explained(number, job, placed, explainer)


def _explained(number: int, job: Job, placed: PlacedSchedule, explainer: Explainer) -> Waiting:
    reason = explainer.waiting(job.job_id)
    code, text = reason.code, texts.wait_text(reason, explainer.when)
    if number in placed.left_out:
        code, text = placed.left_out[number].code, texts.left_out_text(placed.left_out[number])
    elif job.state == "running":
        code, text = WaitCode.PREEMPTED, texts.preempted_text(text)
    earliest_s = None if reason.fits_at is None else explainer.start_s(reason.fits_at)
    return Waiting(job.job_id, code, text, reason.binding, earliest_s)


def _whole(values: Sequence[float] | np.ndarray) -> tuple[int, ...]:
    return tuple(int(v) for v in np.rint(np.asarray(values, float)))


def with_loads(plan: Plan, prices: Mapping[str, tuple[float, ...]]) -> Plan:
    """Return the plan with the figures of its zones and cooling plants, from its assignments and storage."""
    loads = plan_loads(plan)
    plants = plant_plans(plan.snapshot, loads)
    return msgspec.structs.replace(plan, zones=_zone_plans(plan, loads, prices), plants=plants)


def _zone_plans(plan: Plan, loads: Loads, prices: Mapping[str, tuple[float, ...]]) -> tuple[ZonePlan, ...]:
    """Return the planned power per zone and slot: the site at the meter, others in IT power; heat for halls."""
    budgets = zone_budgets(plan.snapshot)
    found: list[ZonePlan] = []
    for zone in plan.snapshot.site.zones():
        budget = budgets.get(zone)
        overview = loads.halls.get(zone)
        heat = capacity = np.zeros(0)
        if overview is not None and overview.heat_w:
            heat = np.sum(list(overview.heat_w.values()), axis=0)
            capacity = np.sum(list(overview.capacity_w.values()), axis=0)
        shown = () if budget is None else _whole(np.minimum(budget, 1e15))
        found.append(
            ZonePlan(zone, _whole(loads.zone_w[zone]), shown, _whole(heat), _whole(capacity), prices.get(zone, ()))
        )
    return tuple(found)


def proven_status(status: str, value: int, bound: int) -> str:
    """Return "optimal" for a solver's plan whose value is the bound that its certificate proves."""
    return "optimal" if status == "feasible" and value >= bound else status


def restated(plan: Plan, value: int, bound: int) -> Plan:
    """Return the plan with a value and a bound, the gap between them, and a status that they prove."""
    status = proven_status("feasible" if plan.status == "optimal" else plan.status, value, bound)
    gap = (bound - value) / bound if bound > 0 else 0.0
    return msgspec.structs.replace(plan, value=value, bound=bound, gap=gap, status=status)


def assemble(
    snapshot: Snapshot,
    built: BuiltProblem,
    placed: PlacedSchedule,
    retained: RetainedJobs,
    *,
    status: str,
    bound: int,
    created_s: int,
    certificate: Certificate | None = None,
    notes: tuple[str, ...] = (),
    solve_s: float = 0.0,
    round_s: float = 0.0,
    work: Mapping[str, int] | None = None,
    cut: tuple[str, ...] = (),
    storages: tuple[StoragePlan, ...] = (),
    storage_cost: int = 0,
) -> Plan:
    """Return the plan of a placed schedule, not yet verified.

    `built` has the capacities that storage leaves; `storage_cost` is the cost of storage in units of value.
    """
    value = placed.schedule.value(built.problem) - storage_cost
    priced = None if certificate is None else read_certificate(built.problem, certificate)
    explainer = Explainer(snapshot, built, placed.schedule, priced)
    status = proven_status(status, value, bound)
    optimal = (texts.OPTIMAL_NOTE,) if status == "optimal" else ()
    plan = Plan(
        version=PLAN_VERSION,
        plan_id=snapshot_hash(snapshot),
        created_s=created_s,
        status=status,  # type: ignore[arg-type]
        value=value,
        bound=bound,
        gap=(bound - value) / bound if bound > 0 else 0.0,
        assignments=assignments(snapshot, built, placed, explainer),
        waiting=(
            *(_shed(snapshot, retained, job_id) for job_id in retained.stops),
            *_waiting(built, placed, retained, explainer),
        ),
        zones=(),
        snapshot=snapshot,
        certificate=certificate,
        storages=storages,
        notes=(*texts.input_notes(snapshot), *notes, *optimal),
        solve_s=solve_s,
        round_s=round_s,
        work=dict(work or {}),
        cut_short=cut,
    )
    return with_loads(plan, {} if priced is None else zone_prices(snapshot, built, priced))
