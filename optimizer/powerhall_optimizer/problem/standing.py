"""Decisions of the last plan as part of a problem: what they cost to change, which is no part of a plan's value.

The held problem has one option more for each job that has such a decision: the same place and mode, with the start of
the last plan alone. It is worth `gain` more than the decision itself, or `near_gain` where the decision is firm. So a
search that knows nothing of last plans changes a decision only where the schedule as a whole gains at least that much.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.problem.usage import add_usage, meter_rise, over_limit, usage_of

__all__ = ["HeldProblem", "Standing", "firm_decisions", "job_worth"]

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Standing:
    """The last plan's decisions in a problem's numbers: option and start (-1: none), and which of them are firm."""

    option: Ints  # [J]
    start: Ints  # [J]
    gain: int
    """Value that each change must gain."""
    firm: Bools  # [J]
    near_gain: int = 0
    """The same for a firm decision, where it is more."""
    near: int = 1
    """Slots from now in which starts are near."""
    cost: float = 0.0
    """Share of a plan's value that standing decisions which are not firm may cost in all."""

    @property
    def worth(self) -> Ints:
        """What keeping each job's decision is worth [J]."""
        gain = np.where(self.firm, max(self.gain, self.near_gain), self.gain)
        return np.where(self.option >= 0, gain, 0).astype(np.int64)

    @property
    def schedule(self) -> Schedule:
        """The decisions as a schedule; they need not fit together."""
        return Schedule(self.option.copy(), self.start.copy())

    def kept(self, schedule: Schedule) -> Bools:
        """Whether each job's decision is the last plan's."""
        result: Bools = (self.option >= 0) & (schedule.option == self.option) & (schedule.start == self.start)
        return result


def job_worth(problem: Problem) -> Ints:
    """Return the most that each job's work is worth within the horizon."""
    worth = np.zeros(problem.jobs, np.int64)
    owner = np.repeat(np.arange(problem.jobs), np.diff(problem.job_options))
    np.maximum.at(worth, owner, problem.option_rate * np.minimum(problem.option_duration, problem.slots))
    return worth


def firm_decisions(problem: Problem, running: Schedule, wanted: Schedule, near: Bools) -> tuple[Bools, dict[int, int]]:
    """Return which near decisions fit beside the running jobs, the earliest first; for the others the broken limit.

    The limit is the number of a resource.
    """
    usage = usage_of(problem, running)
    firm = np.zeros(problem.jobs, bool)
    broken: dict[int, int] = {}
    jobs = np.flatnonzero(near & (wanted.option >= 0))
    for job in jobs[np.lexsort((-job_worth(problem)[jobs], wanted.start[jobs]))].tolist():
        option, start = int(wanted.option[job]), int(wanted.start[job])
        span = start, min(problem.slots, start + int(problem.option_duration[option]))
        if over_limit(problem, usage, option)[slice(*span)].any():
            broken[job] = _broken(problem, usage, option, span)
        else:
            add_usage(problem, usage, option, span)
            firm[job] = True
    return firm, broken


def _broken(problem: Problem, usage: Ints, option: int, span: tuple[int, int]) -> int:
    """Return the resource whose limit an option breaks beside a usage."""
    for resource, amount in problem.uses_of(option):
        if (usage[resource, slice(*span)] + amount > problem.capacity[resource, slice(*span)]).any():
            return resource
    rise = meter_rise(problem, usage, option)
    return -1 if rise is None else rise[0]


class HeldProblem:
    """A problem in which changes of standing decisions cost; converts schedules between the two."""

    def __init__(self, problem: Problem, standing: Standing) -> None:
        self.before = problem
        self.standing = standing
        self.held = np.flatnonzero(standing.option >= 0)
        self.origin: Ints = np.insert(
            np.arange(problem.options, dtype=np.int64), problem.job_options[self.held + 1], standing.option[self.held]
        )
        """Per option of the held problem, the option of the other."""
        self.added = np.zeros(problem.jobs + 1, np.int64)
        self.added[self.held + 1] = 1
        self.added = np.cumsum(self.added)
        """Options added before each job."""

    @cached_property
    def own_options(self) -> Ints:
        """Per held job, the option that keeps its decision."""
        result: Ints = self.before.job_options[self.held + 1] + self.added[self.held + 1] - 1
        return result

    @cached_property
    def problem(self) -> Problem:
        """The held problem."""
        p, standing = self.before, self.standing
        counts = np.diff(p.option_uses)[self.origin]
        ends = np.cumsum(counts)
        entries = np.repeat(p.option_uses[self.origin] - (ends - counts), counts) + np.arange(int(counts.sum()))
        job_options = p.job_options + self.added
        names = ("label", "duration", "rate", "tariff", "energy")
        earliest, latest = p.option_earliest[self.origin], p.option_latest[self.origin]
        earliest[self.own_options] = latest[self.own_options] = standing.start[self.held]
        bonus = p.option_bonus[self.origin]
        bonus[self.own_options] += standing.worth[self.held]
        return replace(
            p,
            job_options=job_options,
            option_uses=np.concatenate(([0], ends)).astype(np.int64),
            use_resource=p.use_resource[entries],
            use_amount=p.use_amount[entries],
            option_earliest=earliest,
            option_latest=latest,
            option_bonus=bonus,
            **{f"option_{name}": getattr(p, f"option_{name}")[self.origin] for name in names},
        )

    def whole(self, schedule: Schedule) -> Schedule:
        """Return a schedule of the held problem in the numbers of the other."""
        option = np.where(schedule.option >= 0, self.origin[np.maximum(schedule.option, 0)], -1)
        return Schedule(option.astype(np.int64), schedule.start.copy())

    def own(self, schedule: Schedule) -> Schedule:
        """Return a schedule of the other problem in the numbers of the held one; it keeps what stands."""
        option = np.where(schedule.option >= 0, schedule.option + self.added[:-1], -1)
        keep = np.full(len(option), -1, np.int64)
        keep[self.held] = self.own_options
        return Schedule(np.where(self.standing.kept(schedule), keep, option).astype(np.int64), schedule.start.copy())
