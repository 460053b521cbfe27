"""Plans made before, under other limits too, as starts of the solver and as drafts where they hold."""

from collections.abc import Sequence

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan
from powerhall_optimizer.placement.placer import PlacedSchedule
from powerhall_optimizer.planning.plan_value import schedule_of
from powerhall_optimizer.problem.schedule_check import check_schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem

__all__ = ["adopted", "drafts"]


def adopted(starts: Sequence[Plan | MultiSitePlan], built: BuiltProblem) -> list[PlacedSchedule]:
    """Return the decisions of plans that hold the problem's limits, those of most value first, on their nodes.

    Rows, racks, feeds and ramps are not looked at: the checker judges the plan.
    """
    found: list[tuple[int, int, PlacedSchedule]] = []
    numbers = {job.job_id: number for number, job in enumerate(built.jobs)}
    for rank, start in enumerate(starts):
        plans = start.plans if isinstance(start, MultiSitePlan) else (start,)
        if any(entry.beside and entry.job_id in numbers for plan in plans for entry in plan.assignments):
            continue  # a job that has a GPU now was beside another one
        try:
            schedule = schedule_of(plans, built)
        except KeyError:
            continue
        if next(check_schedule(built.problem, schedule), None) is not None:
            continue
        entries = (entry for plan in plans for entry in plan.assignments if entry.job_id in numbers)
        nodes = {numbers[entry.job_id]: entry.placements for entry in entries}
        found.append((-schedule.value(built.problem), rank, PlacedSchedule(schedule, nodes, {})))
    return [placed for _, _, placed in sorted(found, key=lambda entry: entry[:2])]


def drafts(starts: Sequence[Plan | MultiSitePlan], built: BuiltProblem, placed: PlacedSchedule) -> list[PlacedSchedule]:
    """Return the placed schedule, and before it the plans to start from that are worth more, the best first."""
    value = placed.schedule.value(built.problem) if starts else 0
    return [*(found for found in adopted(starts, built) if found.schedule.value(built.problem) > value), placed]
