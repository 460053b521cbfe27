"""What the last plan decided, in the numbers of the present problem: what stands, what is firm, and on which nodes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Assignment, Placement, Plan
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning import texts
from powerhall_optimizer.problem.arrays import Problem, Schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem
from powerhall_optimizer.problem.standing import Standing, firm_decisions, job_worth

__all__ = ["LastPlan"]


@dataclass(frozen=True, slots=True)
class LastPlan:
    """The last plan's decisions that are still possible, the nodes of each, and near ones that a limit forces away."""

    plan_id: str
    standing: Standing
    nodes: Mapping[int, tuple[Placement, ...]]
    near_jobs: frozenset[str]
    """Ids of the jobs that were announced to start soon: they stay unless they are forced, or much is at stake."""
    forced: Mapping[str, str]
    """Those of them whose decision does not fit any more beside what runs, with the text of what it breaks."""
    names: tuple[str, ...]
    """Ids of the problem's jobs."""

    def given_up(self, schedule: Schedule) -> frozenset[str]:
        """Return ids of the near jobs that a schedule has elsewhere for the sake of the plan's value."""
        moved = self.standing.firm & ~self.standing.kept(schedule)
        return frozenset(self.names[job] for job in np.flatnonzero(moved).tolist())

    @staticmethod
    def of(
        previous: Plan | MultiSitePlan | None,
        built: BuiltProblem,
        running: Schedule,
        settings: RoundSettings,
        start_s: int,
    ) -> "LastPlan | None":
        """Return what stands of a plan; None without one, for one of other times, and where the settings hold nothing.

        `running` has the running jobs as they hold every limit together; near decisions must fit beside them.
        """
        if previous is None or (settings.keep_s <= 0 and settings.move_gain <= 0):
            return None
        plans = previous.plans if isinstance(previous, MultiSitePlan) else (previous,)
        then = plans[0].snapshot
        if not 0 <= start_s - then.start_s < then.slots * then.slot_s:
            return None
        wanted, nodes, announced = _wanted(plans, built, start_s, settings.keep_s)
        if not (wanted.option >= 0).any():
            return None
        problem = built.problem
        near = np.zeros(problem.jobs, bool)
        near[announced] = True
        firm, broken = firm_decisions(problem, running, wanted, near)
        worth = job_worth(problem)[wanted.option >= 0]
        gain = max(1, round(settings.move_gain * float(worth.mean())))
        near_gain = max(gain, round(settings.near_gain * float(worth.sum())))
        names = tuple(job.job_id for job in built.jobs)
        forced = {names[job]: _lost(problem, resource) for job, resource in broken.items()}
        near_jobs = frozenset(names[job] for job in announced)
        slots = max(1, math.ceil(settings.keep_s / problem.slot_s))
        standing = Standing(wanted.option, wanted.start, gain, firm, near_gain, slots, settings.keep_cost)
        return LastPlan(previous.plan_id, standing, nodes, near_jobs, forced, names)


def _lost(problem: Problem, resource: int) -> str:
    return texts.lost_text(texts.limits_text([problem.resource_keys[resource]]))


def _wanted(
    plans: Sequence[Plan], built: BuiltProblem, start_s: int, keep_s: float
) -> tuple[Schedule, dict[int, tuple[Placement, ...]], list[int]]:
    """Return the plans' decisions that are still options, the nodes of those that wait, and which are near ones.

    A job that should have started and waits is wanted now; a running one goes on in the mode that was planned for it.
    """
    problem = built.problem
    wanted = Schedule.empty(problem.jobs)
    nodes: dict[int, tuple[Placement, ...]] = {}
    announced: list[int] = []
    decided = {entry.job_id: (plan, entry) for plan in plans for entry in plan.assignments}
    for number, job in enumerate(built.jobs):
        if job.job_id not in decided:
            continue
        plan, entry = decided[job.job_id]
        option = _option(built, number, plan.snapshot.site.name, entry)
        start = 0 if job.state == "running" else max(0, (entry.start_s - start_s) // problem.slot_s)
        if option is None or not problem.option_earliest[option] <= start <= problem.option_latest[option]:
            continue
        wanted.option[number], wanted.start[number] = option, start
        if job.state == "waiting":
            nodes[number] = entry.placements
            if entry.start_s < plan.snapshot.start_s + keep_s:
                announced.append(number)
    return wanted, nodes, announced


def _option(built: BuiltProblem, number: int, site: str, entry: Assignment) -> int | None:
    key = entry.hall, entry.node_type, entry.mode
    for option in built.problem.options_of(number):
        choice = built.choices[option]
        if choice.site in ("", site) and (choice.hall, choice.node_type, choice.mode) == key:
            return option
    return None
