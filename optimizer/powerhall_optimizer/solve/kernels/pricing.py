"""The subproblem of the Lagrangian relaxation: with the capacities priced, each job takes its best option and start.

Capacity plays no part in here; the result is a bound and a direction for the prices, not a schedule. Every start of
every option is looked at, so this is the hottest loop of the solver: `best_start` runs on vectors.
"""

from __future__ import annotations

from powerhall_optimizer.jit import fast_inner_kernel, inner_kernel, kernel
from powerhall_optimizer.solve.kernels.kernel_arrays import (
    BONUS,
    DEADLINE,
    DELAY_COST,
    LATE_COST,
    LATE_FINE,
    LOWEST,
    PLANNED_START,
    RATE,
    SHIFT_COST,
    WAIT_VALUE,
    Columns,
    Floats,
    PricedDecisions,
    ProblemArrays,
)
from powerhall_optimizer.solve.kernels.vector_max import larger

__all__ = ["best_start", "price_jobs"]

_BLOCK = 64
"""Starts that are looked at together."""
_ROUNDING = 1e-12
"""Relative difference below which two values are equal."""


@fast_inner_kernel
def _top(price: Floats, price_after: Floats, level: float, slope: float, multiple: float) -> float:
    """Return the greatest level + slope * i less `multiple` times the price from one place to the other."""
    top = LOWEST
    for i in range(len(price)):
        top = larger(top, level - multiple * (price_after[i] - price[i]))
        level += slope
    return top


@fast_inner_kernel
def _top_cut_off(price: Floats, level: float, slope: float, multiple: float) -> float:
    """Return the same for starts whose end lies behind the horizon: the price from there on is part of `level`."""
    top = LOWEST
    for i in range(len(price)):
        top = larger(top, level + multiple * price[i])
        level += slope
    return top


@inner_kernel
def _first_best(
    prefix: Floats, piece: tuple[int, int], duration: int, line: tuple[float, float], multiple: float, top: float
) -> int:
    """Return the first start of a piece (first, behind the last) whose value is `top`; duration -1: no end inside.

    Rounding apart, and so that equal prices never push work into the future. `line` has the value less price of start 0
    and what each start adds. Blocks without such a start are passed over by vectors.
    """
    base, slope = line
    wanted = top - _ROUNDING * (abs(top) + abs(base))
    for lo in range(piece[0], piece[1], _BLOCK):
        hi = min(piece[1], lo + _BLOCK)
        level = base + slope * lo
        if duration >= 0:
            best = _top(prefix[lo:hi], prefix[lo + duration : hi + duration], level, slope, multiple)
        else:
            best = _top_cut_off(prefix[lo:hi], level, slope, multiple)
        if best < wanted:
            continue
        for start in range(lo, hi):
            value = base + slope * start + multiple * prefix[start]
            if duration >= 0:
                value -= multiple * prefix[start + duration]
            if value >= wanted:
                return int(start)
    return piece[0]


@fast_inner_kernel
def _next_kink(lo: int, hi: int, tail: int, late: int, planned: int) -> int:
    """Return the end of the piece that begins at `lo`: the first kink behind it, `hi` at the latest."""
    if lo < tail < hi:
        hi = tail
    if lo < late < hi:
        hi = late
    if lo < planned < hi:
        hi = planned
    return hi


@fast_inner_kernel
def best_start(
    problem: ProblemArrays, job: int, option: int, prefix: Floats, slots: int, locate: bool
) -> tuple[float, int]:
    """Return the best (value less price, start) of one option over all its starts.

    `prefix` [T + 1] is the row of the option's profile: prefix sums of the price of one unit. As a function of the
    start, the value is linear between kinks: where the job begins to reach behind the horizon (`tail`), where it
    begins to be late (`late`), and at the start of the previous plan (`planned`). So the starts are cut into at most
    four pieces, each with a base and a slope computed once; inside a piece a start costs one multiplication and two
    look-ups, on vectors. Only with `locate` is the start right, by a second pass over the winning piece.
    """
    terms = problem.job_value[job]
    delay, shift = terms[DELAY_COST], terms[SHIFT_COST]
    deadline, late_cost, late_fine = terms[DEADLINE], terms[LATE_COST], terms[LATE_FINE]
    duration = problem.option_duration[option]
    multiple = float(problem.option_multiple[option])
    rate, bonus = problem.option_value[option, RATE], problem.option_value[option, BONUS]
    tail = slots - duration + 1  # first start whose end lies behind the horizon
    late = int(deadline) - duration + 1  # first start whose end lies behind the deadline
    planned = int(terms[PLANNED_START])
    latest = problem.option_latest[option]
    best = LOWEST
    at = problem.option_earliest[option]
    lo = at
    while lo <= latest:
        hi = _next_kink(lo, latest + 1, tail, late, planned)
        base = bonus - delay * duration
        slope = -delay
        if lo >= late:
            base -= late_cost * (duration - deadline) + late_fine
            slope -= late_cost
        if planned >= 0:  # less shift * |start - planned|, which changes its sign at the kink
            if lo < planned:
                base -= shift * planned
                slope += shift
            else:
                base += shift * planned
                slope -= shift
        if lo < tail:  # runs to its end: full work, price of `duration` slots
            base += rate * duration
        else:  # cut off by the horizon: work and price of the slots that are left
            base += rate * slots - multiple * prefix[slots]
            slope -= rate
        level = base + slope * lo
        if lo < tail:
            top = _top(prefix[lo:hi], prefix[lo + duration : hi + duration], level, slope, multiple)
        else:
            top = _top_cut_off(prefix[lo:hi], level, slope, multiple)
        if top > best:
            best = top
            if locate:
                at = _first_best(prefix, (lo, hi), duration if lo < tail else -1, (base, slope), multiple, top)
        lo = hi
    return best, at


@inner_kernel
def _book_usage(problem: ProblemArrays, option: int, start: int, result: PricedDecisions) -> None:
    """Add one decision to `usage_change`: up at its start, down at its end or at the horizon."""
    end = min(result.usage_change.shape[1] - 1, start + problem.option_duration[option])
    profile = problem.option_profile[option]
    for use in range(problem.profile_uses[profile], problem.profile_uses[profile + 1]):
        amount = problem.profile_amount[use] * problem.option_multiple[option]
        result.usage_change[problem.profile_resource[use], start] += amount
        result.usage_change[problem.profile_resource[use], end] -= amount


@kernel
def price_jobs(
    problem: ProblemArrays, first: int, last: int, columns: Columns, prefix: Floats, result: PricedDecisions
) -> None:
    """Find the best decision of the jobs first .. last - 1 at given prices; `prefix` is [P, T + 1].

    Threads share `gain`, `option`, `start` and `column_gain`, whose ranges do not overlap; each has a `usage_change` of
    its own. A job waits unless a decision has a higher value; of equal columns the first wins.
    """
    slots = prefix.shape[1] - 1
    for job in range(first, last):
        best = problem.job_value[job, WAIT_VALUE]
        choice = -1  # in locals, not in the arrays: a write to memory inside the loop costs a tenth of the speed
        start = -1
        for column in range(columns.pointer[job], columns.pointer[job + 1]):
            option = columns.option[column]
            value, _ = best_start(problem, job, option, prefix[problem.option_profile[option]], slots, False)
            result.column_gain[column] = value
            if value > best:
                best = value
                choice = option
        if choice >= 0:  # the start of the winner alone is located
            _, start = best_start(problem, job, choice, prefix[problem.option_profile[choice]], slots, True)
            _book_usage(problem, choice, start, result)
        result.gain[job], result.option[job], result.start[job] = best, choice, start
