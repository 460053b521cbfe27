"""A plan's decisions in the numbers of the planner's own problem.

The bound that plans carry is what the checker proves from their certificate (`powerhall_optimizer.verify.value`).
"""

from collections.abc import Sequence

from powerhall.plan.plan import Plan, WaitCode
from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem
from powerhall_optimizer.storage.model import Dispatch, StorageModel, named_dispatch

__all__ = ["plan_dispatch", "plan_stops", "schedule_of"]


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


def plan_dispatch(plan: Plan, model: StorageModel) -> Dispatch:
    """Return the dispatch of the plan's storage, in the model's order."""
    return named_dispatch(model, {entry.name: entry.power_w for entry in plan.storages})
