"""Kernel: conservative backfilling, in which every job near the head of the queue has a reservation.

A job starts where it delays no reservation of an earlier one (Mu'alem and Feitelson, "Utilization, Predictability,
Workloads, and User Runtime Estimates in Scheduling the IBM SP2 with Backfilling", IEEE TPDS 2001). What is free later
is kept per pool, not per node, in steps of `RESOLUTION_S`, as Slurm's `bf_resolution`; of racks only the sum
of their limits; rows count where a job starts. The weather and budgets of now are taken to last.
"""

import math
from typing import NamedTuple

from powerhall_twin.engine.columns import (
    CLS,
    FAMILY,
    GPUS,
    HALL,
    HALL_FIRST,
    HALL_ZONE,
    KIND,
    LEFT,
    N_WAITING,
    PLAN_NW,
    POOL_FREE,
    POOL_NW,
    RACK_ZONES,
    WAITING_LIST,
)
from powerhall_twin.engine.hall_power import hall_facility
from powerhall_twin.engine.jit import inner_kernel, kernel
from powerhall_twin.engine.job_arrays import World
from powerhall_twin.engine.queue_passes import (
    PassMemory,
    QueueRule,
    end_first,
    find_for,
    heap_of_runs,
    may_rise,
    start_found,
    stop_over,
)
from powerhall_twin.engine.site_arrays import Floats, Ints

__all__ = ["MOST_STEPS", "Profile", "run_reservations"]

RESOLUTION_S = 300.0
MOST_STEPS = 192
_MOST_JOBS = 100
_NO_LIMIT = 2**62


class Profile(NamedTuple):
    """What runs and reservations leave over time: step s holds from `times_s[s]` to the next; the last for ever."""

    times_s: Floats  # [S]
    free: Ints  # [S, H*T]
    nw: Ints  # [S, H*T] planned IT power
    hall_w: Floats  # [S, H] planned power at the meter
    cap_nw: Ints  # [H] IT power that the hall's own limit and those of its racks leave
    sizes: Ints  # [1] steps in use


@inner_kernel
def _refresh(w: World, profile: Profile, step: int, hall: int) -> None:
    profile.hall_w[step, hall], _ = hall_facility(w.layout, w.plants, profile.nw[step], hall, -1, 0)


@inner_kernel
def _split(profile: Profile, time_s: float) -> int:
    """Return the step that begins at a time, made where there is none; the last step where there is no room."""
    n = profile.sizes[0]
    at = n
    while at > 0 and profile.times_s[at - 1] >= time_s:
        at -= 1
    if at < n and profile.times_s[at] == time_s:
        return int(at)
    if n == len(profile.times_s):
        return int(min(at, n - 1))
    for step in range(n, at, -1):
        _copy(profile, step - 1, step)
        profile.times_s[step] = profile.times_s[step - 1]
    _copy(profile, at - 1, at)
    profile.times_s[at] = time_s
    profile.sizes[0] = n + 1
    return int(at)


@inner_kernel
def _copy(profile: Profile, source: int, target: int) -> None:
    for pool in range(profile.free.shape[1]):
        profile.free[target, pool] = profile.free[source, pool]
        profile.nw[target, pool] = profile.nw[source, pool]
    for hall in range(profile.hall_w.shape[1]):
        profile.hall_w[target, hall] = profile.hall_w[source, hall]


@inner_kernel
def _cap_nw(w: World, hall: int) -> int:
    """Return the lower of a hall's limit and the sum of its racks' limits; a rack's own zone is the last above it."""
    layout, total = w.layout, 0
    most: int = w.limits.zone_nw[layout.halls[HALL_ZONE, hall]]
    for rack in range(layout.halls[HALL_FIRST, hall], layout.halls[HALL_FIRST, hall + 1]):
        own = 0
        for at in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
            own = max(own, layout.rack_zone[at])
        if w.limits.zone_nw[own] >= _NO_LIMIT:
            return most
        total += w.limits.zone_nw[own]
    return min(most, total)


@inner_kernel
def _start_profile(w: World, memory: PassMemory, profile: Profile, now_s: float) -> None:
    """Fill the profile with the site now and the ends of its runs."""
    jobs, types = w.jobs, len(w.layout.type_gpus)
    profile.sizes[0], profile.times_s[0] = 1, now_s
    for pool in range(profile.free.shape[1]):
        profile.free[0, pool], profile.nw[0, pool] = w.now.pools[POOL_FREE, pool], w.now.pools[POOL_NW, pool]
    for hall in range(profile.hall_w.shape[1]):
        profile.hall_w[0, hall] = w.now.hall_w[hall]
        profile.cap_nw[hall] = _cap_nw(w, hall)
    count = heap_of_runs(w, memory, now_s)
    for n in range(count, 0, -1):
        r, end_s = end_first(w, memory, n)
        step = _split(profile, now_s + math.ceil((end_s - now_s) / RESOLUTION_S) * RESOLUTION_S)
        pool = jobs.ints[HALL, r] * types + jobs.ints[KIND, r]
        profile.free[step, pool] += jobs.ints[GPUS, r]
        profile.nw[step, pool] -= jobs.ints[GPUS, r] * jobs.ints[PLAN_NW, r]
    for step in range(1, profile.sizes[0]):
        for hall in range(profile.hall_w.shape[1]):
            _refresh(w, profile, step, hall)


@inner_kernel
def _holds(w: World, profile: Profile, step: int, pool: int, gpus: int, added_nw: int) -> bool:
    """Return whether a job fits into a pool in a step."""
    if profile.free[step, pool] < gpus:
        return False
    types = len(w.layout.type_gpus)
    hall, total_nw = pool // types, added_nw
    for kind in range(types):
        total_nw += profile.nw[step, hall * types + kind]
    if total_nw > profile.cap_nw[hall]:
        return False
    hall_w, cooled = hall_facility(w.layout, w.plants, profile.nw[step], hall, pool % types, added_nw)
    site_w = hall_w
    for other in range(profile.hall_w.shape[1]):
        if other != hall:
            site_w += profile.hall_w[step, other]
    return cooled and site_w <= w.limits.site_w[0] + 1e-6


@inner_kernel
def _free_until(w: World, profile: Profile, first: int, pool: int, gpus: int, added_nw: int, length_s: float) -> int:
    """Return the first step in which a job that starts with `first` does not fit, -1 where it fits to its end."""
    end_s = profile.times_s[first] + length_s
    for step in range(first, profile.sizes[0]):
        if profile.times_s[step] >= end_s:
            break
        if not _holds(w, profile, step, pool, gpus, added_nw):
            return step
    return -1


@inner_kernel
def _reserve(w: World, profile: Profile, first: int, pool: int, gpus: int, added_nw: int, length_s: float) -> None:
    end_s = profile.times_s[first] + length_s
    last = _split(profile, end_s)
    for step in range(first, last if profile.times_s[last] == end_s else profile.sizes[0]):
        profile.free[step, pool] -= gpus
        profile.nw[step, pool] += added_nw
        _refresh(w, profile, step, pool // len(w.layout.type_gpus))


@inner_kernel
def _place(w: World, rule: QueueRule, memory: PassMemory, profile: Profile, j: int, now_s: float) -> bool:
    """Start a job, or reserve the earliest time at which it fits; True where it has started."""
    jobs, types = w.jobs, len(w.layout.type_gpus)
    family, gpus, c = jobs.ints[FAMILY, j], jobs.ints[GPUS, j], jobs.ints[CLS, j]
    length_s = math.ceil(jobs.floats[LEFT, j] / rule.speed[c] / RESOLUTION_S) * RESOLUTION_S
    best, best_pool = profile.sizes[0], -1
    for pool in range(profile.free.shape[1]):
        if not jobs.family_hall[family, pool // types] or not jobs.family_type[family, pool % types]:
            continue
        added_nw, step = gpus * rule.plan_nw[c, pool % types], 0
        while step < best:
            stuck = _free_until(w, profile, step, pool, gpus, added_nw, length_s)
            if (
                stuck < 0
                and step == 0
                and not (
                    find_for(w, rule, memory, w.now, (w.now, w.now), j, False, pool // types)
                    and may_rise(w, rule, memory, j)
                )
            ):
                stuck = 0  # enough in all, but not on nodes and racks
            if stuck < 0 and (step > 0 or memory.found.place[2] == pool % types):
                best, best_pool = step, pool
                break
            step = stuck + 1 if stuck >= 0 else step + 1
        if best == 0:
            start_found(w, rule, memory, j, now_s)
            break
    if best_pool >= 0:
        _reserve(w, profile, best, best_pool, gpus, gpus * rule.plan_nw[c, best_pool % types], length_s)
    return best_pool >= 0 and best == 0


@kernel
def run_reservations(w: World, rule: QueueRule, memory: PassMemory, profile: Profile, now_s: float) -> int:
    """Stop runs where a limit does not hold, then start what delays no reservation; return how many jobs started."""
    jobs = w.jobs
    stop_over(w, memory, now_s)
    if jobs.sizes[N_WAITING] == 0:
        return 0
    _start_profile(w, memory, profile, now_s)
    kept, started, n = 0, 0, jobs.sizes[N_WAITING]
    for i in range(n):
        j = jobs.ints[WAITING_LIST, i]
        if i - started < _MOST_JOBS and _place(w, rule, memory, profile, j, now_s):
            started += 1
            continue
        jobs.ints[WAITING_LIST, kept] = j
        kept += 1
    jobs.sizes[N_WAITING] = kept
    return started
