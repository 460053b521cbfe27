"""Compiled loops of the solver; they release the GIL, so that threads share the work, and are cached on disk.

Value here is without energy: energy is part of the profile's price (`prefix`), so that one difference of two prefix
sums charges both. Flat loops compile faster than many small functions, hence the length of some of them."""

# ruff: noqa: C901, PLR0912, PLR0917

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from powerhall_optimizer.problem.arrays import Ints

Array = npt.NDArray[Any]
LOWEST = -1e300


class ProblemArrays(NamedTuple):
    """The compiled problem as the loops read it (see `presolve.PresolvedProblem` for the terms)."""

    job_options: Ints  # [J + 1]
    job_value: npt.NDArray[np.float64]  # [J, 7] wait, delay, deadline, late cost, late fine, planned start, shift cost
    option_profile: Ints  # [O]
    option_multiple: Ints  # [O]
    option_block: Ints  # [O]
    option_duration: Ints  # [O]
    option_earliest: Ints  # [O]
    option_latest: Ints  # [O]
    option_value: npt.NDArray[np.float64]  # [O, 2] rate, bonus
    profile_uses: Ints  # [P + 1]
    profile_resource: Ints
    profile_amount: Ints


@njit(nogil=True, cache=True)
def _where(prefix: Array, lo: int, hi: int, duration: int, base: float, slope: float, multiple: float) -> int:
    """First start in lo .. hi - 1 with the greatest base + slope * start less price; duration -1: until the end."""
    best = LOWEST
    at = lo
    for s in range(lo, hi):
        value = base + slope * s + multiple * prefix[s]
        if duration >= 0:
            value -= multiple * prefix[s + duration]
        if value > best:
            best = value
            at = s
    return at


@njit(nogil=True, cache=True, fastmath=True)
def best_start(t: ProblemArrays, job: int, o: int, prefix: Array, slots: int, locate: bool) -> tuple[float, int]:
    """Best (value less price, start) of one option over all its starts; `prefix` [T + 1] belongs to its profile.

    The value is linear in the start between the kinks (end of the horizon, deadline, planned start). Finding the place
    of the maximum costs more than its size: only with `locate` is the start right.
    """
    terms = t.job_value[job]
    delay, deadline, late_cost, late_fine, planned, shift = terms[1], terms[2], terms[3], terms[4], terms[5], terms[6]
    duration, latest, multiple = t.option_duration[o], t.option_latest[o], float(t.option_multiple[o])
    rate, bonus = t.option_value[o, 0], t.option_value[o, 1]
    tail = slots - duration + 1
    late = int(deadline) - duration + 1
    plan = int(planned)
    best = LOWEST
    at = t.option_earliest[o]
    lo = at
    while lo <= latest:
        hi = latest + 1
        if lo < tail < hi:
            hi = tail
        if lo < late < hi:
            hi = late
        if lo < plan < hi:
            hi = plan
        base = bonus - delay * duration
        slope = -delay
        if lo >= late:
            base -= late_cost * (duration - deadline) + late_fine
            slope -= late_cost
        if plan >= 0:
            if lo < plan:
                base -= shift * plan
                slope += shift
            else:
                base += shift * plan
                slope -= shift
        if lo < tail:
            base += rate * duration
        else:
            base += rate * slots - multiple * prefix[slots]
            slope -= rate
        top = LOWEST
        if lo < tail:
            for s in range(lo, hi):
                top = max(top, base + slope * s - multiple * (prefix[s + duration] - prefix[s]))
        else:
            for s in range(lo, hi):
                top = max(top, base + slope * s + multiple * prefix[s])
        if top > best:
            best = top
            if locate:
                at = _where(prefix, lo, hi, duration if lo < tail else -1, base, slope, multiple)
        lo = hi
    return best, at


@njit(nogil=True, cache=True)
def price_jobs(
    t: ProblemArrays,
    first: int,
    last: int,
    job_columns: Ints,
    column_option: Ints,
    prefix: Array,
    gain: Array,
    choice: Ints,
    start: Ints,
    change: Array,
    column_gain: Array,
) -> None:
    """Best decision at given prices for the jobs first .. last - 1, and the changes of usage these decisions make.

    Writes gain [J] (value less price, at least the wait value), choice [J] (option or -1), start [J], column_gain (best
    of each column) and adds to change [R, T + 1] (usage as differences from slot to slot).
    """
    slots = prefix.shape[1] - 1
    for job in range(first, last):
        best = t.job_value[job, 0]
        choice[job] = -1
        start[job] = -1
        for c in range(job_columns[job], job_columns[job + 1]):
            o = column_option[c]
            value, _ = best_start(t, job, o, prefix[t.option_profile[o]], slots, False)
            column_gain[c] = value
            if value > best:
                best = value
                choice[job] = o
        gain[job] = best
        o = choice[job]
        if o >= 0:
            _, start[job] = best_start(t, job, o, prefix[t.option_profile[o]], slots, True)
            end = min(slots, start[job] + t.option_duration[o])
            profile = t.option_profile[o]
            for u in range(t.profile_uses[profile], t.profile_uses[profile + 1]):
                amount = t.profile_amount[u] * t.option_multiple[o]
                change[t.profile_resource[u], start[job]] += amount
                change[t.profile_resource[u], end] -= amount


@njit(nogil=True, cache=True)
def decision_value(t: ProblemArrays, job: int, o: int, s: int, slots: int) -> float:
    """Value of one start, energy apart."""
    terms = t.job_value[job]
    end = s + t.option_duration[o]
    value = t.option_value[o, 1] + t.option_value[o, 0] * (min(end, slots) - s) - terms[1] * end
    if end > terms[2]:
        value -= terms[3] * (end - terms[2]) + terms[4]
    if terms[5] >= 0:
        value -= terms[6] * abs(s - terms[5])
    return float(value)


@njit(nogil=True, cache=True)
def best_fit(
    t: ProblemArrays, job: int, o: int, free: Ints, prefix: Array, floor: float, blocked: Array
) -> tuple[float, int]:
    """Best (value less price, start) above `floor` among the starts where the option fits into `free` [R, T].

    `blocked` is scratch of T flags. The start is -1 when nothing above the floor fits.
    """
    slots = free.shape[1]
    duration, earliest, latest = t.option_duration[o], t.option_earliest[o], t.option_latest[o]
    multiple, profile = t.option_multiple[o], t.option_profile[o]
    stop = min(slots, latest + duration)
    for slot in range(earliest, stop):
        blocked[slot] = 0
    for u in range(t.profile_uses[profile], t.profile_uses[profile + 1]):
        amount = t.profile_amount[u] * multiple
        row = free[t.profile_resource[u]]
        for slot in range(earliest, stop):
            blocked[slot] |= row[slot] < amount
    best = floor
    at = -1
    wall = earliest  # first start behind the last blocked slot seen so far
    for slot in range(earliest, stop):
        if blocked[slot]:
            wall = slot + 1
            continue
        s = slot - duration + 1
        upto = latest if slot == slots - 1 else s  # in the last slot all later starts end behind the horizon
        for start in range(max(wall, s), upto + 1):
            value = decision_value(t, job, o, start, slots)
            value -= multiple * (prefix[min(slots, start + duration)] - prefix[start])
            if value > best:
                best = value
                at = start
    return best, at


@njit(nogil=True, cache=True)
def occupy(t: ProblemArrays, o: int, start: int, sign: int, free: Ints) -> None:
    """Take (sign 1) from `free` or give back (sign -1) what a decision uses."""
    end = min(free.shape[1], start + t.option_duration[o])
    profile = t.option_profile[o]
    for u in range(t.profile_uses[profile], t.profile_uses[profile + 1]):
        amount = sign * t.profile_amount[u] * t.option_multiple[o]
        row = free[t.profile_resource[u]]
        for slot in range(start, end):
            row[slot] -= amount


@njit(nogil=True, cache=True)
def place(
    t: ProblemArrays,
    job: int,
    prefix: Array,
    free: Ints,
    allowed: Array,
    floor: float,
    option: Ints,
    start: Ints,
    tops: Array,
    blocked: Array,
) -> bool:
    """Gives the job its best decision above `floor` (value less price) that fits, within the allowed blocks."""
    slots = free.shape[1]
    lo, hi = t.job_options[job], t.job_options[job + 1]
    for o in range(lo, hi):
        tops[o - lo] = LOWEST
        if allowed[t.option_block[o]]:
            tops[o - lo], _ = best_start(t, job, o, prefix[t.option_profile[o]], slots, False)
    best = floor
    choice = -1
    at = -1
    while True:
        k = 0
        for i in range(1, hi - lo):
            if tops[i] > tops[k]:
                k = i
        if hi == lo or tops[k] <= best:
            break
        tops[k] = LOWEST
        o = lo + k
        value, s = best_fit(t, job, o, free, prefix[t.option_profile[o]], best, blocked)
        if s >= 0:
            best, choice, at = value, o, s
    if choice < 0:
        return False
    option[job] = choice
    start[job] = at
    occupy(t, choice, at, 1, free)
    return True


@njit(nogil=True, cache=True)
def adapt(
    t: ProblemArrays,
    profiles: Ints,
    price: Array,
    energy: Array,
    free: Ints,
    room: Array,
    level: float,
    slope: float,
    scale: float,
    prefix: Array,
    adapted: Array,
) -> None:
    """Writes prefix sums of the profiles at prices that rise where a resource is fuller than `level`.

    The price of a resource in a slot is scale * price * clip(1 + slope * (fill - level), 0.05, 4) with fill the used
    share of its capacity `room` [R, T]. Resources that bind together then fill up together. `adapted` [R, T] is
    scratch.
    """
    slots = free.shape[1]
    for profile in profiles:
        for u in range(t.profile_uses[profile], t.profile_uses[profile + 1]):
            adapted[t.profile_resource[u], 0] = -1.0
    for profile in profiles:
        row = prefix[profile]
        for slot in range(slots):
            row[slot + 1] = energy[profile, slot + 1] - energy[profile, slot]
        for u in range(t.profile_uses[profile], t.profile_uses[profile + 1]):
            r = t.profile_resource[u]
            own = adapted[r]
            if own[0] < 0.0:
                for slot in range(slots):
                    fill = 1.0 - free[r, slot] / room[r, slot]
                    own[slot] = scale * price[r, slot] * min(4.0, max(0.05, 1.0 + slope * (fill - level)))
            amount = float(t.profile_amount[u])
            for slot in range(slots):
                row[slot + 1] += amount * own[slot]
        for slot in range(slots):
            row[slot + 1] += row[slot]


@njit(nogil=True, cache=True)
def insert(
    t: ProblemArrays,
    order: Ints,
    profiles: Ints,
    price: Array,
    energy: Array,
    free: Ints,
    room: Array,
    slope: float,
    scale: float,
    every: int,
    option: Ints,
    start: Ints,
) -> None:
    """Places the waiting jobs of `order` where value exceeds waiting at prices that follow what is placed (`adapt`).

    The level is the mean fill weighted by price; prices are renewed after `every` jobs.
    """
    most = 0
    for job in order:
        most = max(most, t.job_options[job + 1] - t.job_options[job])
    tops = np.empty(most, np.float64)
    blocked = np.zeros(free.shape[1], np.bool_)
    allowed = np.ones(t.option_block.max() + 1, np.bool_)
    prefix = np.zeros((len(t.profile_uses) - 1, free.shape[1] + 1))
    adapted = np.empty(free.shape, np.float64)
    weight = 0.0
    for r in range(free.shape[0]):
        for slot in range(free.shape[1]):
            weight += price[r, slot] * room[r, slot]
    for i in range(len(order)):
        if i % every == 0:
            left = 0.0
            for r in range(free.shape[0]):
                for slot in range(free.shape[1]):
                    left += price[r, slot] * free[r, slot]
            level = 1.0 - left / weight if weight > 0.0 else 0.0
            adapt(t, profiles, price, energy, free, room, level, slope, scale, prefix, adapted)
        job = order[i]
        if option[job] < 0:
            place(t, job, prefix, free, allowed, t.job_value[job, 0], option, start, tops, blocked)


@njit(nogil=True, cache=True)
def total_value(t: ProblemArrays, option: Ints, start: Ints, prefix: Array) -> float:
    """Value of a schedule; `prefix` holds energy only."""
    slots = prefix.shape[1] - 1
    total = 0.0
    for job in range(len(option)):
        total += job_worth(t, job, option[job], start[job], prefix, slots)
    return total


@njit(nogil=True, cache=True)
def job_worth(t: ProblemArrays, job: int, o: int, s: int, prefix: Array, slots: int) -> float:
    """Value of one decision less its price, or the wait value."""
    if o < 0:
        return float(t.job_value[job, 0])
    row = prefix[t.option_profile[o]]
    price = t.option_multiple[o] * (row[min(slots, s + t.option_duration[o])] - row[s])
    return float(decision_value(t, job, o, s, slots) - price)


@njit(nogil=True, cache=True)
def job_worths(t: ProblemArrays, option: Ints, start: Ints, prefix: Array, worth: Array) -> None:
    """Writes the value less price of every job's decision into `worth` [J]."""
    slots = prefix.shape[1] - 1
    for job in range(len(option)):
        worth[job] = job_worth(t, job, option[job], start[job], prefix, slots)
