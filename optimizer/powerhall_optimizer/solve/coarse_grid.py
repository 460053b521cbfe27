"""A time grid that grows coarser with distance: solve far slots in long steps, near ones in short steps, then refine.

A coarse problem is a safe approximation of the fine one: the capacity of a long slot is the least of its short ones, a
job starts at a long slot's beginning and occupies every long slot that it touches. So a coarse schedule holds every
limit of the fine problem, slot by slot. Far starts are decided on the coarsest grid, nearer ones on finer grids, and
the whole is then improved on the fine grid. The bound is always that of the fine problem (see optimizer-model.md).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import NO_DEADLINE, Ints, PriceCertificate, Problem, Schedule
from powerhall_optimizer.problem.meter import coarse_curves
from powerhall_optimizer.solve.result import SolveResult

__all__ = ["LEVEL_SHARE", "Coarse", "Level", "Part", "coarsen", "levels_of", "narrowed", "solve_on_grid"]

LEVEL_SHARE = 0.15
"""Part of time and work for each coarse level."""
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Level:
    """Starts from fine slot `first` on lie on multiples of `factor` fine slots."""

    first: int
    factor: int


@dataclass(frozen=True, slots=True)
class Part:
    """A problem made of some options of another, with the numbers that they have there."""

    problem: Problem
    options: Ints

    def whole(self, schedule: Schedule) -> Schedule:
        """Return a schedule of the part in the numbers of the other problem."""
        chosen = np.where(schedule.option >= 0, self.options[np.maximum(schedule.option, 0)], -1)
        return Schedule(chosen.astype(np.int64), schedule.start.copy())

    def own(self, schedule: Schedule) -> Schedule:
        """Return a schedule of the other problem in the numbers of the part; jobs with other options wait."""
        number = np.searchsorted(self.options, schedule.option)
        known = np.minimum(number, max(0, len(self.options) - 1))
        there = (schedule.option >= 0) & (number < len(self.options))
        there &= self.options[known] == schedule.option if len(self.options) else False
        return Schedule(np.where(there, number, -1).astype(np.int64), np.where(there, schedule.start, -1))


@dataclass(frozen=True, slots=True)
class Coarse:
    """A problem on slots `factor` times as long."""

    part: Part
    factor: int

    @property
    def problem(self) -> Problem:
        """The coarse problem."""
        return self.part.problem

    def fine(self, schedule: Schedule) -> Schedule:
        """Return a schedule of the coarse problem on the fine slots; it holds all limits that the coarse one holds."""
        found = self.part.whole(schedule)
        return Schedule(found.option, np.where(found.option >= 0, found.start * self.factor, -1))

    def coarse(self, schedule: Schedule) -> Schedule:
        """Return a fine schedule on the coarse slots, starts rounded up; it need not hold the limits."""
        own = self.part.own(schedule)
        up = np.minimum(-(-own.start // self.factor), self.problem.slots - 1)
        return Schedule(own.option, np.where(own.option >= 0, up, -1))


def chosen(problem: Problem, keep: Bools, earliest: Ints, latest: Ints) -> Part:
    """Return the problem with the kept options only, and with these windows of starts."""
    numbers = np.flatnonzero(keep)
    owner = np.repeat(np.arange(problem.jobs, dtype=np.int64), np.diff(problem.job_options))[numbers]
    counts = np.diff(problem.option_uses)[numbers]
    ends = np.cumsum(counts)
    entries = np.repeat(problem.option_uses[numbers] - (ends - counts), counts) + np.arange(int(counts.sum()))
    names = ("label", "duration", "rate", "bonus", "tariff", "energy")
    part = replace(
        problem,
        job_options=np.searchsorted(owner, np.arange(problem.jobs + 1)).astype(np.int64),
        option_uses=np.concatenate(([0], ends)).astype(np.int64),
        use_resource=problem.use_resource[entries],
        use_amount=problem.use_amount[entries],
        option_earliest=earliest[numbers],
        option_latest=latest[numbers],
        **{f"option_{name}": getattr(problem, f"option_{name}")[numbers] for name in names},
    )
    return Part(part, numbers)


def narrowed(problem: Problem, schedule: Schedule, first: int) -> Part:
    """Return the problem in which starts from slot `first` on are as scheduled, and every other start is before it."""
    fixed = np.flatnonzero((schedule.option >= 0) & (schedule.start >= first))
    job = np.repeat(np.arange(problem.jobs, dtype=np.int64), np.diff(problem.job_options))
    is_fixed = np.zeros(problem.jobs, bool)
    is_fixed[fixed] = True
    earliest, latest = problem.option_earliest.copy(), np.minimum(problem.option_latest, first - 1)
    keep = ~is_fixed[job] & (earliest <= latest)
    options = schedule.option[fixed]
    keep[options] = True
    earliest[options] = latest[options] = schedule.start[fixed]
    return chosen(problem, keep, earliest, latest)


def coarsen(problem: Problem, factor: int) -> Coarse:
    """Return the problem on slots `factor` times as long, on the safe side of every limit."""
    p = problem
    starts = np.arange(0, p.slots, factor)
    length = -(-p.option_duration // factor)
    job = np.repeat(np.arange(p.jobs, dtype=np.int64), np.diff(p.job_options))
    longer = length * factor - p.option_duration
    bonus = p.option_bonus - p.option_rate * longer + p.job_delay_cost[job] * longer
    deadline = np.where(p.job_deadline >= NO_DEADLINE, NO_DEADLINE, p.job_deadline // factor)
    planned = np.where(p.job_planned_start >= 0, p.job_planned_start // factor, -1)
    scaled = replace(
        p,
        slots=len(starts),
        slot_s=p.slot_s * factor,
        capacity=np.minimum.reduceat(p.capacity, starts, axis=1),
        tariff=np.add.reduceat(p.tariff, starts, axis=1) if len(p.tariff) else np.zeros((0, len(starts)), np.int64),
        curves=coarse_curves(p.curves, starts),
        job_delay_cost=p.job_delay_cost * factor,
        job_deadline=deadline,
        job_late_cost=p.job_late_cost * factor,
        job_planned_start=planned,
        job_shift_cost=p.job_shift_cost * factor,
        option_duration=length,
        option_rate=p.option_rate * factor,
        option_bonus=bonus,
    )
    earliest, latest = -(-p.option_earliest // factor), p.option_latest // factor
    return Coarse(chosen(scaled, earliest <= latest, earliest, latest), factor)


def levels_of(slots: int, slot_s: int, coarse: Sequence[tuple[float, float]]) -> tuple[Level, ...]:
    """Return the levels, coarsest first, of pairs (after this many s, slots of so many s) that lie in the horizon."""
    found = []
    for after_s, long_s in coarse:
        first = round(after_s / slot_s)
        if 0 < first < slots:
            found.append(Level(first, max(1, round(long_s / slot_s))))
    return tuple(sorted(found, key=lambda level: -level.first))


class Solve(Protocol):
    """Signature of the solver that the grid calls."""

    def __call__(
        self, part: Problem, /, *, seconds: float, warm: PriceCertificate | None, previous: Schedule | None
    ) -> SolveResult:
        """Return the best schedule and prices within the time."""
        ...


def solve_on_grid(
    problem: Problem,
    levels: Sequence[Level],
    solve: Solve,
    *,
    seconds: float,
    warm: PriceCertificate | None,
    previous: Schedule | None,
    stop: Callable[[], bool] = lambda: False,
) -> SolveResult:
    """Solve level by level, then on the fine grid from there; value and bound are of the fine problem."""
    from powerhall_optimizer.solve.stage import certificate_of

    began = time.monotonic()
    part = Part(problem, np.arange(problem.options))
    price = None if warm is None else warm.price / 2.0**warm.scale_bits
    for level in levels:
        if stop():
            break
        coarse = coarsen(part.problem, level.factor)
        starts = np.arange(0, problem.slots, level.factor)
        result = solve(
            coarse.problem,
            seconds=LEVEL_SHARE * seconds,
            warm=None if price is None else certificate_of(coarse.problem, np.add.reduceat(price, starts, axis=1)),
            previous=None if previous is None else coarse.coarse(part.own(previous)),
        )
        previous = part.whole(coarse.fine(result.schedule))
        if part.problem is problem:  # prices of a narrowed problem do not cover the options that it excludes
            found = result.certificate
            lasting = found.price / 2.0**found.scale_bits / level.factor
            price = np.repeat(lasting, level.factor, axis=1)[:, : problem.slots]
        part = narrowed(problem, previous, level.first)
    return solve(
        problem,
        seconds=max(0.1, seconds - (time.monotonic() - began)),
        warm=warm,  # coarse prices would be a worse start than none
        previous=previous,
    )
