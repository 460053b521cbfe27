"""Serial schedule generation: jobs in a given order, each at the decision of greatest value less price that fits.

Placed jobs stay; a job that fits nowhere, or has a higher value waiting at these prices, waits.
"""

from __future__ import annotations

import numpy as np

from powerhall_optimizer.jit import inner_kernel, kernel
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.kernels.decision_value import decision_value
from powerhall_optimizer.solve.kernels.fill_prices import follow_fill, mean_fill
from powerhall_optimizer.solve.kernels.kernel_arrays import (
    LOWEST,
    WAIT_VALUE,
    FillRule,
    Flags,
    Floats,
    GuidePrices,
    InsertionScratch,
    PriceBasis,
    ProblemArrays,
    WorkingSchedule,
)
from powerhall_optimizer.solve.kernels.meter import book_at_meter, mark_blocked_at_meter
from powerhall_optimizer.solve.kernels.pricing import best_start

__all__ = ["TAKE", "book", "insert_all", "insert_job", "insertion_scratch"]

TAKE, GIVE_BACK = 1, -1
"""Signs of `book`."""


@inner_kernel
def book(problem: ProblemArrays, option: int, start: int, sign: int, free: Ints) -> None:
    """Take (1) the usage of one decision from `free` [R, T], or give it back (-1)."""
    end = min(free.shape[1], start + problem.option_duration[option])
    profile = problem.option_profile[option]
    for use in range(problem.profile_uses[profile], problem.profile_uses[profile + 1]):
        amount = sign * problem.profile_amount[use] * problem.option_multiple[option]
        pool = problem.curves.row_pool[problem.profile_resource[use]]
        if pool >= 0:
            book_at_meter(problem.curves, pool, amount, free, (start, end))
        row = free[problem.profile_resource[use], start:end]  # a loop from 0 runs on vectors
        for slot in range(len(row)):
            row[slot] -= amount


@inner_kernel
def _mark_blocked(problem: ProblemArrays, option: int, free: Ints, first: int, stop: int, blocked: Flags) -> None:
    """Flag the slots first .. stop - 1 in which some resource has too little left for the option."""
    blocked[first:stop] = False
    shown = blocked[first:stop]
    profile = problem.option_profile[option]
    for use in range(problem.profile_uses[profile], problem.profile_uses[profile + 1]):
        amount = problem.profile_amount[use] * problem.option_multiple[option]
        row = free[problem.profile_resource[use], first:stop]  # a loop from 0 runs on vectors
        for slot in range(len(row)):
            shown[slot] |= row[slot] < amount
        pool = problem.curves.row_pool[problem.profile_resource[use]]
        if pool >= 0:
            mark_blocked_at_meter(problem.curves, pool, amount, free, (first, stop), blocked)


@inner_kernel
def _best_fit(
    problem: ProblemArrays, job: int, option: int, free: Ints, prefix: Floats, floor: float, blocked: Flags
) -> tuple[float, int]:
    """Return the best (value less price, start) above `floor` among the starts where the option fits; start -1: none.

    One sweep over the slots: at each slot that is not blocked, the starts whose last slot this is are valued, unless a
    blocked slot (`wall` is the first start behind it) lies between. In the last slot of the horizon all later starts
    end behind it, too. The first of equal starts wins. `prefix` [T + 1] is the row of the option's profile.
    """
    slots = free.shape[1]
    duration, earliest, latest = (
        problem.option_duration[option],
        problem.option_earliest[option],
        problem.option_latest[option],
    )
    multiple = problem.option_multiple[option]
    stop = min(slots, latest + duration)
    _mark_blocked(problem, option, free, earliest, stop, blocked)
    best = floor
    at = -1
    wall = earliest
    for slot in range(earliest, stop):
        if blocked[slot]:
            wall = slot + 1
            continue
        first = slot - duration + 1
        last = latest if slot == slots - 1 else first
        for start in range(max(wall, first), last + 1):
            value = decision_value(problem, job, option, start, slots)
            value -= multiple * (prefix[min(slots, start + duration)] - prefix[start])
            if value > best:
                best = value
                at = start
    return best, at


@inner_kernel
def insert_job(
    problem: ProblemArrays,
    job: int,
    prefix: Floats,
    allowed: Flags,
    schedule: WorkingSchedule,
    scratch: InsertionScratch,
) -> None:
    """Give a waiting job its best decision that fits and beats waiting, within the `allowed` halls [H].

    First every option is priced without regard to capacity, which bounds its value; then options are tried
    for fit by falling bound, until no bound exceeds the best that fits. So most options are never tried for fit. Of
    equal bounds the first option is tried first and, by the strict comparison, kept. `prefix` is [P, T + 1].
    """
    slots = schedule.free.shape[1]
    lo, hi = problem.job_options[job], problem.job_options[job + 1]
    upper = scratch.upper
    for option in range(lo, hi):
        upper[option - lo] = LOWEST
        if allowed[problem.option_hall[option]]:
            row = prefix[problem.option_profile[option]]
            upper[option - lo], _ = best_start(problem, job, option, row, slots, False)
    best = problem.job_value[job, WAIT_VALUE]
    choice = -1
    at = -1
    while True:
        top = 0
        for i in range(1, hi - lo):
            if upper[i] > upper[top]:
                top = i
        if hi == lo or upper[top] <= best:
            break
        upper[top] = LOWEST
        option = lo + top
        row = prefix[problem.option_profile[option]]
        value, start = _best_fit(problem, job, option, schedule.free, row, best, scratch.blocked)
        if start >= 0:
            best, choice, at = value, option, start
    if choice >= 0:
        schedule.option[job] = choice
        schedule.start[job] = at
        book(problem, choice, at, TAKE, schedule.free)


@inner_kernel
def insertion_scratch(problem: ProblemArrays, jobs: Ints, slots: int) -> InsertionScratch:
    """Allocate the scratch space for inserting any of the given jobs."""
    most = 0
    for job in jobs:
        most = max(most, problem.job_options[job + 1] - problem.job_options[job])
    return InsertionScratch(np.empty(most, np.float64), np.zeros(slots, np.bool_))


@kernel
def insert_all(
    problem: ProblemArrays,
    order: Ints,
    basis: PriceBasis,
    rule: FillRule,
    every: int,
    schedule: WorkingSchedule,
) -> None:
    """Insert the waiting jobs of `order` one by one, at prices that follow the placed jobs.

    The prices are renewed after `every` jobs, with the present mean fill as the level (`rule.level` is not used): a
    resource costs more than its Lagrangian price only where it is ahead of the others.
    """
    slots = schedule.free.shape[1]
    scratch = insertion_scratch(problem, order, slots)
    allowed = np.ones(problem.option_hall.max() + 1, np.bool_)
    profiles = np.arange(len(problem.profile_uses) - 1)
    guide = GuidePrices(np.zeros((len(profiles), slots + 1)), np.empty(schedule.free.shape, np.float64))
    weight = 0.0
    for resource in range(schedule.free.shape[0]):
        for slot in range(slots):
            if problem.curves.row_pool[resource] < 0:
                weight += basis.price[resource, slot] * basis.capacity[resource, slot]
    for i in range(len(order)):
        if i % every == 0:
            now = FillRule(mean_fill(problem, basis, schedule.free, weight), rule.slope, rule.scale)
            follow_fill(problem, profiles, basis, schedule.free, now, guide)
        if schedule.option[order[i]] < 0:
            insert_job(problem, order[i], guide.prefix, allowed, schedule, scratch)
