"""Kernels that start waiting jobs: in strict order, with EASY backfilling, or all that fit.

A job as large as one of its family that did not fit is not tried until something ends, slows down or a limit changes.
EASY: Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995; here the reservation is of nodes and of power.
"""

from typing import NamedTuple

import numpy as np

from powerhall_twin.engine.columns import (
    BEGAN,
    BUDGETS,
    CLS,
    FAMILY,
    GPUS,
    HALL,
    ID_RANK,
    KIND,
    LEFT,
    MODE,
    N_RUNNING,
    N_WAITING,
    NODE_COUNT,
    NODE_FIRST,
    PLAN_NW,
    PREEMPTIBLE,
    RACK_ZONES,
    RUNNING_LIST,
    VERSION,
    WAITING_LIST,
)
from powerhall_twin.engine.jit import inner_kernel, kernel
from powerhall_twin.engine.job_arrays import JobArrays, World, left_at, start_run, stop_run
from powerhall_twin.engine.node_search import find
from powerhall_twin.engine.occupancy import Found, Occupancy, commit, copy_to, lesser, rise_fits, rooms_over, site_w
from powerhall_twin.engine.site_arrays import Flags, Floats, Ints

__all__ = [
    "EASY_ORDER",
    "GREEDY_ORDER",
    "STRICT_ORDER",
    "PassMemory",
    "QueueRule",
    "end_first",
    "find_for",
    "heap_of_runs",
    "may_rise",
    "run_queue",
    "start_found",
    "stop_over",
]

STRICT_ORDER, EASY_ORDER, GREEDY_ORDER = range(3)
_LONG = 1
_ENDLESS = 2**62


class QueueRule(NamedTuple):
    """Mode and planned power of the jobs that a policy starts."""

    mode: Ints  # [C, T]
    plan_nw: Ints  # [C, T] per GPU, above idle
    speed: Floats  # [C] lowest speed by plan in these modes


class PassMemory(NamedTuple):
    """What passes remember from one to the next, and their scratch."""

    found: Found
    then: Occupancy  # the reservation of the head
    both: Occupancy  # free now and then
    empty: Occupancy  # the site without jobs
    unfit: Ints  # [2, F] version at which a job of a family did not fit, now and beside the head
    unfit_gpus: Ints  # [2, F] its GPUs: a larger one does not fit either
    alone: Ints  # [3, F] number of budgets, GPUs from which on a job does not fit even alone, and up to which it does
    head: Ints  # [2] the job with the reservation, and the version at which it was made
    head_s: Floats  # [1] its start
    counts: Ints  # [N] scratch
    over: Flags  # [Z] scratch
    runs: Ints  # [J] scratch
    ends: Floats  # [J] scratch


@inner_kernel
def find_for(
    w: World,
    rule: QueueRule,
    memory: PassMemory,
    occ: Occupancy,
    moments: tuple[Occupancy, Occupancy],
    j: int,
    two: bool,
    only: int,
) -> bool:
    """Look for nodes for a job as `node_search.find` does, under the rule."""
    jobs = w.jobs
    family = jobs.ints[FAMILY, j]
    may = jobs.family_hall[family], jobs.family_type[family]
    gpu_nw = rule.plan_nw[jobs.ints[CLS, j]]
    return find(w.layout, w.limits, w.plants, occ, moments, two, memory.found, may, only, jobs.ints[GPUS, j], gpu_nw)


@inner_kernel
def may_rise(w: World, rule: QueueRule, memory: PassMemory, j: int) -> bool:
    """Return whether a job may start where it was found without a rise of the site's power beyond its ramp."""
    found = memory.found
    added_nw = w.jobs.ints[GPUS, j] * rule.plan_nw[w.jobs.ints[CLS, j], found.place[2]]
    return rise_fits(w.layout, w.limits.rise_w[0], w.plants, w.now, found.place[1], found.place[2], added_nw)


@inner_kernel
def _counts(w: World, memory: PassMemory) -> int:
    """Write the GPUs on each node that was found; return the number of nodes."""
    found = memory.found
    n: int = found.place[0]
    for i in range(n):
        memory.counts[i] = w.layout.type_gpus[found.place[2]]
    memory.counts[n - 1] = found.place[3]
    return n


@inner_kernel
def start_found(w: World, rule: QueueRule, memory: PassMemory, j: int, now_s: float) -> None:
    """Start a job on the nodes that were found."""
    jobs, found = w.jobs, memory.found
    n = _counts(w, memory)
    first = jobs.ints[NODE_FIRST, j]
    jobs.ints[NODE_COUNT, j] = n
    for i in range(n):
        jobs.pool[0, first + i] = found.nodes[i]
        jobs.pool[1, first + i] = memory.counts[i]
    hall, kind = found.place[1], found.place[2]
    start_run(w, j, hall, kind, rule.mode[jobs.ints[CLS, j], kind], rule.plan_nw[jobs.ints[CLS, j], kind], now_s)


@inner_kernel
def _could_ever(w: World, rule: QueueRule, memory: PassMemory, j: int) -> bool:
    jobs, family = w.jobs, w.jobs.ints[FAMILY, j]
    alone, gpus = memory.alone, jobs.ints[GPUS, j]
    if alone[0, family] != jobs.sizes[BUDGETS]:
        alone[0, family], alone[1, family], alone[2, family] = jobs.sizes[BUDGETS], _ENDLESS, 0
    if gpus >= alone[1, family] or gpus <= alone[2, family]:
        return bool(gpus <= alone[2, family])
    fits = find_for(w, rule, memory, memory.empty, (memory.empty, memory.empty), j, False, -1)
    if fits:
        kind, empty = memory.found.place[2], memory.empty
        added_nw, most_w = gpus * rule.plan_nw[jobs.ints[CLS, j], kind], w.limits.rise_w[1]
        fits = rise_fits(w.layout, site_w(empty) + most_w, w.plants, empty, memory.found.place[1], kind, added_nw)
    alone[2 if fits else 1, family] = gpus
    return fits


@inner_kernel
def _sift_down(runs: Ints, ends: Floats, ranks: Ints, at: int, n: int) -> None:
    """Restore the heap of the runs that end first, equal ones by id, below a place."""
    while 2 * at + 1 < n:
        child = 2 * at + 1
        if child + 1 < n:
            one, two = ends[child], ends[child + 1]
            if two < one or (two == one and ranks[runs[child + 1]] < ranks[runs[child]]):
                child += 1
        if ends[at] < ends[child] or (ends[at] == ends[child] and ranks[runs[at]] <= ranks[runs[child]]):
            return
        runs[at], runs[child] = runs[child], runs[at]
        ends[at], ends[child] = ends[child], ends[at]
        at = child


@inner_kernel
def heap_of_runs(w: World, memory: PassMemory, now_s: float) -> int:
    """Make `memory.runs` a heap of the runs by their end as planning figures have it, in `ends`; return how many."""
    jobs, runs, ends = w.jobs, memory.runs, memory.ends
    n: int = jobs.sizes[N_RUNNING]
    for i in range(n):
        j = runs[i] = jobs.ints[RUNNING_LIST, i]
        speed = w.tables.plan_speed[jobs.ints[CLS, j], jobs.ints[KIND, j], jobs.ints[MODE, j]]
        ends[i] = now_s + left_at(jobs, j, now_s) / speed
    for at in range(n // 2 - 1, -1, -1):
        _sift_down(runs, ends, jobs.ints[ID_RANK], at, n)
    return n


@inner_kernel
def end_first(w: World, memory: PassMemory, n: int) -> tuple[int, float]:
    """Take the run that ends first from the heap of n runs; return it and its end."""
    runs, ends = memory.runs, memory.ends
    r, end_s = runs[0], ends[0]
    runs[0], ends[0] = runs[n - 1], ends[n - 1]
    _sift_down(runs, ends, w.jobs.ints[ID_RANK], 0, n - 1)
    return r, end_s


@inner_kernel
def _reserve_head(w: World, rule: QueueRule, memory: PassMemory, j: int, now_s: float) -> None:
    """End the runs one after another until the head fits, and reserve its nodes.

    After an end only its hall is looked at, unless the site's budget was in the way elsewhere, or feeds may be.
    """
    jobs, then = w.jobs, memory.then
    copy_to(w.now, then)
    memory.head[0], memory.head[1], memory.head_s[0] = j, jobs.sizes[VERSION], np.inf
    count = heap_of_runs(w, memory, now_s)
    has_feeds = len(w.layout.rack_zone) > 3 * (w.layout.racks.shape[1] - 1)
    for n in range(count, 0, -1):
        r, end_s = end_first(w, memory, n)
        first, last = jobs.ints[NODE_FIRST, r], jobs.ints[NODE_FIRST, r] + jobs.ints[NODE_COUNT, r]
        commit(w.layout, w.plants, then, jobs.pool[0, first:last], jobs.pool[1, first:last], jobs.ints[PLAN_NW, r], -1)
        is_local = n < count and memory.found.place[4] == 0 and not has_feeds
        only = jobs.ints[HALL, r] if is_local else -1
        if find_for(w, rule, memory, then, (then, then), j, False, only):
            m = _counts(w, memory)
            gpu_nw = rule.plan_nw[jobs.ints[CLS, j], memory.found.place[2]]
            commit(w.layout, w.plants, then, memory.found.nodes[:m], memory.counts[:m], gpu_nw, 1)
            memory.head_s[0] = end_s
            copy_to(w.now, memory.both)
            for z in range(len(then.zone_nw)):
                memory.both.zone_nw[z] = max(w.now.zone_nw[z], then.zone_nw[z])
            lesser(w.layout, w.now, then, memory.both, memory.found.nodes[:m])
            return


@inner_kernel
def _try(w: World, rule: QueueRule, memory: PassMemory, j: int, now_s: float, is_long: bool) -> bool:
    """Start a job now if it fits; a long one only on what is also free beside the head."""
    jobs, family, at = w.jobs, w.jobs.ints[FAMILY, j], _LONG if is_long else 0
    if is_long:
        fits = find_for(w, rule, memory, memory.both, (w.now, memory.then), j, True, -1)
    else:
        fits = find_for(w, rule, memory, w.now, (w.now, w.now), j, False, -1)
    if not fits or not may_rise(w, rule, memory, j):
        memory.unfit[at, family], memory.unfit_gpus[at, family] = jobs.sizes[VERSION], jobs.ints[GPUS, j]
        return False
    start_found(w, rule, memory, j, now_s)
    n = memory.found.place[0]
    if is_long:
        gpu_nw = rule.plan_nw[jobs.ints[CLS, j], memory.found.place[2]]
        commit(w.layout, w.plants, memory.then, memory.found.nodes[:n], memory.counts[:n], gpu_nw, 1)
    lesser(w.layout, w.now, memory.then, memory.both, memory.found.nodes[:n])
    return True


@inner_kernel
def _is_known_unfit(unfit: Ints, unfit_gpus: Ints, family: int, gpus: int, version: int, is_long: bool) -> bool:
    """Whether one of the family of at most these GPUs did not fit; what does not fit now does not beside the head."""
    return bool(
        (unfit[0, family] == version and gpus >= unfit_gpus[0, family])
        or (is_long and unfit[_LONG, family] == version and gpus >= unfit_gpus[_LONG, family])
    )


@inner_kernel
def _pass(w: World, rule: QueueRule, memory: PassMemory, order: int, now_s: float) -> int:
    """Go through the queue once; return how many jobs started."""
    jobs = w.jobs
    kept, started, n = 0, 0, jobs.sizes[N_WAITING]
    has_head, is_blocked = False, False
    ints, unfit, unfit_gpus = jobs.ints, memory.unfit, memory.unfit_gpus
    for i in range(n):
        j = jobs.ints[WAITING_LIST, i]
        is_long = has_head and now_s + jobs.floats[LEFT, j] / rule.speed[jobs.ints[CLS, j]] > memory.head_s[0]
        fits = not is_blocked and not _is_known_unfit(
            unfit, unfit_gpus, ints[FAMILY, j], ints[GPUS, j], jobs.sizes[VERSION], is_long
        )
        if fits and _try(w, rule, memory, j, now_s, is_long):
            started += 1
            continue
        jobs.ints[WAITING_LIST, kept] = j
        kept += 1
        if has_head or is_blocked or order == GREEDY_ORDER or not _could_ever(w, rule, memory, j):
            continue
        if order == STRICT_ORDER:
            is_blocked = True
            continue
        has_head = True
        if memory.head[0] != j or memory.head[1] != jobs.sizes[VERSION] or started > 0:
            _reserve_head(w, rule, memory, j, now_s)
            for family in range(memory.unfit.shape[1]):
                memory.unfit[_LONG, family] = -1
    jobs.sizes[N_WAITING] = kept
    return started


@inner_kernel
def _touches(w: World, j: int, over: Flags) -> bool:
    jobs, layout = w.jobs, w.layout
    for i in range(jobs.ints[NODE_FIRST, j], jobs.ints[NODE_FIRST, j] + jobs.ints[NODE_COUNT, j]):
        rack = layout.node_rack[jobs.pool[0, i]]
        for z in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
            if over[layout.rack_zone[z]]:
                return True
    return False


@inner_kernel
def _before(jobs: JobArrays, j: int, k: int) -> bool:
    """Whether run j is stopped before run k: preemptible ones first, of these the youngest."""
    if jobs.ints[PREEMPTIBLE, j] != jobs.ints[PREEMPTIBLE, k]:
        return bool(jobs.ints[PREEMPTIBLE, j])
    if jobs.floats[BEGAN, j] != jobs.floats[BEGAN, k]:
        return bool(jobs.floats[BEGAN, j] > jobs.floats[BEGAN, k])
    return bool(jobs.ints[ID_RANK, j] < jobs.ints[ID_RANK, k])


@inner_kernel
def stop_over(w: World, memory: PassMemory, now_s: float) -> int:
    """Stop runs under zones over their limit until the planned power of the others fits; return how many."""
    jobs, stopped = w.jobs, 0
    while True:
        site_over = rooms_over(w.layout, w.limits, w.plants, w.now, memory.over)
        if not site_over and not memory.over.any():
            return stopped
        victim = -1
        for i in range(jobs.sizes[N_RUNNING]):
            j = jobs.ints[RUNNING_LIST, i]
            if (victim < 0 or _before(jobs, j, victim)) and (site_over or _touches(w, j, memory.over)):
                victim = j
        if victim < 0:
            return stopped
        stop_run(w, victim, now_s)
        stopped += 1


@kernel
def run_queue(w: World, rule: QueueRule, memory: PassMemory, order: int, now_s: float) -> int:
    """Stop runs where a limit does not hold, then start what may start now; return how many jobs started."""
    stop_over(w, memory, now_s)
    return _pass(w, rule, memory, order, now_s)
