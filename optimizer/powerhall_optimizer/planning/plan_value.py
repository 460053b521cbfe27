"""Value and proven bound of a plan in exact integers, by the planner's own problem.

The planner and the shed ladder write these numbers into plans; the checker computes them again from the plan alone
(`powerhall_optimizer.verify`), with code that shares nothing with this.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from powerhall.plan.plan import Certificate, Plan, WaitCode
from powerhall_optimizer.problem.arrays import PriceCertificate, Problem, Schedule
from powerhall_optimizer.problem.certificate import read_certificate
from powerhall_optimizer.problem.schedule_check import exact_bound, exact_value
from powerhall_optimizer.problem.site_problem import BuiltProblem, build_problem
from powerhall_optimizer.storage.bound import stored_bound
from powerhall_optimizer.storage.model import Dispatch, StorageModel, build_storage_model, named_dispatch

__all__ = ["plan_dispatch", "plan_stops", "proven_bound", "schedule_of", "trivial_bound", "value_and_bound"]


def plan_stops(plan: Plan) -> dict[str, int]:
    """Return for each running job that the plan sheds how many slots it still runs."""
    slots = {a.job_id: (a.end_s - a.start_s) // plan.snapshot.slot_s for a in plan.assignments}
    return {entry.job_id: slots.get(entry.job_id, 0) for entry in plan.waiting if entry.code == WaitCode.SHED}


def schedule_of(plans: Sequence[Plan], built: BuiltProblem) -> Schedule:
    """Return the plans' assignments as options and start slots; KeyError where the problem has no such option."""
    schedule = Schedule.empty(built.problem.jobs)
    assigned = {entry.job_id: (plan, entry) for plan in plans for entry in plan.assignments}
    for number, job in enumerate(built.jobs):
        if job.job_id not in assigned:
            continue
        plan, entry = assigned[job.job_id]
        key = plan.snapshot.site.name, entry.hall, entry.node_type, entry.mode
        for option in built.problem.options_of(number):
            choice = built.choices[option]
            if (choice.site, choice.hall, choice.node_type, choice.mode) == key:
                schedule.option[number] = option
                schedule.start[number] = (entry.start_s - plan.snapshot.start_s) // plan.snapshot.slot_s
                break
        else:
            raise KeyError(job.job_id)
    return schedule


def trivial_bound(problem: Problem) -> int:
    """Return the value when every job gets its best option and nothing is limited: the bound at prices of zero."""
    total = 0
    for job in range(problem.jobs):
        best = int(problem.job_wait_value[job])
        for option in problem.options_of(job):
            best = max(best, int(np.max(problem.values(job, option))))
        total += best
    return total


def plan_dispatch(plan: Plan, model: StorageModel) -> Dispatch:
    """Return the dispatch of the plan's storage, in the model's order."""
    return named_dispatch(model, {entry.name: entry.power_w for entry in plan.storages})


def proven_bound(problem: Problem, model: StorageModel, certificate: Certificate | None) -> int:
    """Return the bound that a certificate proves for jobs and storage together (without one: the trivial bound)."""
    if certificate is None:
        nothing = PriceCertificate(np.zeros(problem.capacity.shape, np.int64), 0)
        return trivial_bound(problem) + _stores(model, nothing, {})
    prices = read_certificate(problem, certificate)
    return exact_bound(problem, prices) + _stores(model, prices, certificate.stored)


def _stores(model: StorageModel, prices: PriceCertificate, worth: Mapping[str, Sequence[int]]) -> int:
    """Value of storage, rounded up: two parts that are each rounded down could come out one short."""
    return math.ceil(stored_bound(model, prices, worth)) if model.units else 0


def value_and_bound(plan: Plan) -> tuple[int, int]:
    """Return the plan's value and the bound that its certificate proves (without one: the trivial bound)."""
    built = build_problem(plan.snapshot, stops=plan_stops(plan))
    model = build_storage_model(plan.snapshot, built)
    value = exact_value(built.problem, schedule_of((plan,), built)) - math.ceil(model.cost(plan_dispatch(plan, model)))
    return value, proven_bound(built.problem, model, plan.certificate)
