"""Jobs as arrays, and the kernels that start, stop and end them.

Sizes: J jobs in order of submission, F families: jobs of one class that may use the same halls and types, so that where
one does not fit a larger one does not either. A run's nodes lie in one pool of node numbers at a fixed place.
"""

from typing import NamedTuple

import numpy as np

from powerhall_twin.engine.columns import (
    BEGAN,
    BUDGETS,
    CHECKPOINT,
    CLS,
    DONE,
    DRAW_NW,
    DURATION,
    END_S,
    ENDED,
    FUTURE,
    HALL,
    KIND,
    LEFT,
    LOST,
    MODE,
    N_RUNNING,
    N_WAITING,
    NODE_COUNT,
    NODE_FIRST,
    PLAN_NW,
    RACK_HALL,
    RACK_TYPE,
    RACK_ZONES,
    RANK,
    RUN_LEFT,
    RUNNING,
    RUNNING_AT,
    RUNNING_LIST,
    SPEED,
    STARTED,
    STATUS,
    STOPS,
    UPDATED,
    VERSION,
    WAITING,
    WAITING_LIST,
    WORKED,
)
from powerhall_twin.engine.jit import inner_kernel, kernel
from powerhall_twin.engine.occupancy import Limits, Occupancy, book, commit, refresh
from powerhall_twin.engine.plant_curves import PlantCurves
from powerhall_twin.engine.site_arrays import DrawTables, Flags, Floats, Ints, Layout

__all__ = [
    "Draw",
    "JobArrays",
    "World",
    "end_due",
    "fail_run",
    "left_at",
    "next_end_s",
    "put_measured",
    "run_on",
    "set_mode",
    "start_run",
    "stop_run",
    "submit",
    "take_out",
    "throttle_hall",
]


class JobArrays(NamedTuple):
    """What jobs ask for, and how far they are; see `columns`."""

    ints: Ints  # [18, J]
    floats: Floats  # [12, J]
    family_hall: Flags  # [F, H]
    family_type: Flags  # [F, T]
    pool: Ints  # [2, n] nodes of the runs, and the GPUs on them
    sizes: Ints  # [4]


class Draw(NamedTuple):
    """Power in fact."""

    zone_nw: Ints  # [Z]
    pool_nw: Ints  # [H*T]


class World(NamedTuple):
    """Everything that a kernel needs."""

    layout: Layout
    limits: Limits
    plants: PlantCurves
    tables: DrawTables
    jobs: JobArrays
    now: Occupancy
    draw: Draw


@inner_kernel
def _add_draw(layout: Layout, draw: Draw, jobs: JobArrays, j: int, gpu_nw: int) -> None:
    """Add a draw per GPU to every zone of a run."""
    for i in range(jobs.ints[NODE_FIRST, j], jobs.ints[NODE_FIRST, j] + jobs.ints[NODE_COUNT, j]):
        rack = layout.node_rack[jobs.pool[0, i]]
        nw = gpu_nw * jobs.pool[1, i]
        for z in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
            draw.zone_nw[layout.rack_zone[z]] += nw
        draw.pool_nw[layout.racks[RACK_HALL, rack] * len(layout.type_gpus) + layout.racks[RACK_TYPE, rack]] += nw


@inner_kernel
def left_at(jobs: JobArrays, j: int, now_s: float) -> float:
    """Return the work left of a run."""
    left: float = jobs.floats[LEFT, j] - (now_s - jobs.floats[UPDATED, j]) * jobs.floats[SPEED, j]
    return max(0.0, left)


@kernel
def start_run(w: World, j: int, hall: int, kind: int, mode: int, plan_nw: int, now_s: float) -> None:
    """Start a job on the nodes that stand in its part of the pool; it must not be in the list of waiting jobs."""
    jobs = w.jobs
    first, last = jobs.ints[NODE_FIRST, j], jobs.ints[NODE_FIRST, j] + jobs.ints[NODE_COUNT, j]
    commit(w.layout, w.plants, w.now, jobs.pool[0, first:last], jobs.pool[1, first:last], plan_nw, 1)
    c = jobs.ints[CLS, j]
    jobs.ints[HALL, j], jobs.ints[KIND, j], jobs.ints[MODE, j], jobs.ints[PLAN_NW, j] = hall, kind, mode, plan_nw
    jobs.ints[DRAW_NW, j], jobs.floats[SPEED, j] = w.tables.draw_nw[c, kind, mode], w.tables.speed[c, kind, mode]
    jobs.ints[STATUS, j], jobs.floats[BEGAN, j], jobs.floats[UPDATED, j] = RUNNING, now_s, now_s
    if np.isnan(jobs.floats[STARTED, j]):
        jobs.floats[STARTED, j] = now_s
    jobs.floats[RUN_LEFT, j] = jobs.floats[LEFT, j]
    jobs.floats[END_S, j] = now_s + jobs.floats[LEFT, j] / jobs.floats[SPEED, j]
    _add_draw(w.layout, w.draw, jobs, j, jobs.ints[DRAW_NW, j])
    jobs.ints[RUNNING_AT, j] = jobs.sizes[N_RUNNING]
    jobs.ints[RUNNING_LIST, jobs.sizes[N_RUNNING]] = j
    jobs.sizes[N_RUNNING] += 1


@inner_kernel
def _release(w: World, j: int, now_s: float) -> None:
    """Free what a run holds, and count its work."""
    jobs = w.jobs
    left = left_at(jobs, j, now_s)
    jobs.floats[WORKED, j] += jobs.floats[LEFT, j] - left
    jobs.floats[LEFT, j] = left
    first, last = jobs.ints[NODE_FIRST, j], jobs.ints[NODE_FIRST, j] + jobs.ints[NODE_COUNT, j]
    commit(w.layout, w.plants, w.now, jobs.pool[0, first:last], jobs.pool[1, first:last], jobs.ints[PLAN_NW, j], -1)
    _add_draw(w.layout, w.draw, jobs, j, -jobs.ints[DRAW_NW, j])
    at, n = jobs.ints[RUNNING_AT, j], jobs.sizes[N_RUNNING] - 1
    jobs.ints[RUNNING_LIST, at] = jobs.ints[RUNNING_LIST, n]
    jobs.ints[RUNNING_AT, jobs.ints[RUNNING_LIST, n]] = at
    jobs.sizes[N_RUNNING] = n
    jobs.sizes[VERSION] += 1


@inner_kernel
def _enqueue(jobs: JobArrays, j: int) -> None:
    """Put a job into the list of waiting jobs, by rank."""
    jobs.ints[STATUS, j] = WAITING
    at = jobs.sizes[N_WAITING]
    while at > 0 and jobs.ints[RANK, jobs.ints[WAITING_LIST, at - 1]] > jobs.ints[RANK, j]:
        jobs.ints[WAITING_LIST, at] = jobs.ints[WAITING_LIST, at - 1]
        at -= 1
    jobs.ints[WAITING_LIST, at] = j
    jobs.sizes[N_WAITING] += 1


@kernel
def submit(w: World, first: int, last: int) -> None:
    """Queue the jobs first .. last-1."""
    for j in range(first, last):
        if w.jobs.ints[STATUS, j] == FUTURE:
            _enqueue(w.jobs, j)


@inner_kernel
def _requeue(w: World, j: int, now_s: float, lost_s: float) -> None:
    """End a run that is not done, and put its job back into the queue with so much work lost."""
    jobs = w.jobs
    _release(w, j, now_s)
    left = min(jobs.floats[DURATION, j], jobs.floats[LEFT, j] + lost_s)
    jobs.floats[LOST, j] += left - jobs.floats[LEFT, j]
    jobs.floats[LEFT, j], jobs.floats[UPDATED, j] = left, now_s
    jobs.ints[STOPS, j] += 1
    _enqueue(jobs, j)


@kernel
def stop_run(w: World, j: int, now_s: float) -> None:
    """Stop and requeue a run; its work so far counts, less its checkpoint cost."""
    _requeue(w, j, now_s, w.jobs.floats[CHECKPOINT, j])


@kernel
def fail_run(w: World, j: int, now_s: float, checkpoint_s: float) -> None:
    """Stop and requeue a run that a failure ends: it goes on from its last checkpoint, one every `checkpoint_s`.

    What it did since then is taken at its mean speed. Starting again costs what a stop costs.
    """
    jobs = w.jobs
    ran_s = now_s - jobs.floats[BEGAN, j]
    done = jobs.floats[RUN_LEFT, j] - left_at(jobs, j, now_s)
    since = (ran_s % checkpoint_s) / ran_s if checkpoint_s <= ran_s else 1.0
    _requeue(w, j, now_s, done * since + jobs.floats[CHECKPOINT, j])


@kernel
def run_on(w: World, node: int, gpu: int) -> int:
    """Return the run that has the `gpu`-th busy GPU of a node, -1 where so many are not busy."""
    jobs = w.jobs
    for i in range(jobs.sizes[N_RUNNING]):
        j = jobs.ints[RUNNING_LIST, i]
        for at in range(jobs.ints[NODE_FIRST, j], jobs.ints[NODE_FIRST, j] + jobs.ints[NODE_COUNT, j]):
            if jobs.pool[0, at] == node:
                if gpu < jobs.pool[1, at]:
                    return int(j)
                gpu -= jobs.pool[1, at]
    return -1


@kernel
def take_out(w: World, empty: Occupancy, node: int, gpus: int, off_nw: int) -> None:
    """Take free GPUs of a node out of use, and power off what it draws idle; negative: put them back."""
    layout, rack = w.layout, w.layout.node_rack[node]
    hall = layout.racks[RACK_HALL, rack]
    for occ in (w.now, empty):
        book(layout, occ, node, gpus, -off_nw)
        refresh(layout, w.plants, occ, hall)
    for z in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
        w.draw.zone_nw[layout.rack_zone[z]] -= off_nw
    w.draw.pool_nw[hall * len(layout.type_gpus) + layout.racks[RACK_TYPE, rack]] -= off_nw
    w.jobs.sizes[VERSION] += 1
    w.jobs.sizes[BUDGETS] += 1


@inner_kernel
def _redraw(w: World, j: int, mode: int, now_s: float) -> None:
    """Change what a run draws in fact, and its speed, to those of a mode."""
    jobs = w.jobs
    left = left_at(jobs, j, now_s)
    jobs.floats[WORKED, j] += jobs.floats[LEFT, j] - left
    jobs.floats[LEFT, j], jobs.floats[UPDATED, j] = left, now_s
    c, kind = jobs.ints[CLS, j], jobs.ints[KIND, j]
    _add_draw(w.layout, w.draw, jobs, j, w.tables.draw_nw[c, kind, mode] - jobs.ints[DRAW_NW, j])
    jobs.ints[DRAW_NW, j], jobs.floats[SPEED, j] = w.tables.draw_nw[c, kind, mode], w.tables.speed[c, kind, mode]
    jobs.floats[END_S, j] = now_s + left / jobs.floats[SPEED, j]


@kernel
def throttle_hall(w: World, hall: int, slowest: Ints, is_hot: bool, now_s: float) -> None:
    """Put all runs of a hall into the slowest mode of their type [T], or back into their own; plans do not know."""
    jobs = w.jobs
    for i in range(jobs.sizes[N_RUNNING]):
        j = jobs.ints[RUNNING_LIST, i]
        mode = slowest[jobs.ints[KIND, j]] if is_hot else jobs.ints[MODE, j]
        if (
            jobs.ints[HALL, j] == hall
            and w.tables.draw_nw[jobs.ints[CLS, j], jobs.ints[KIND, j], mode] != (jobs.ints[DRAW_NW, j])
        ):
            _redraw(w, j, mode, now_s)


@kernel
def set_mode(w: World, j: int, mode: int, plan_nw: int, now_s: float) -> None:
    """Change a run's mode and planning figure."""
    jobs = w.jobs
    first, last = jobs.ints[NODE_FIRST, j], jobs.ints[NODE_FIRST, j] + jobs.ints[NODE_COUNT, j]
    for i in range(first, last):
        book(w.layout, w.now, jobs.pool[0, i], 0, jobs.pool[1, i] * (plan_nw - jobs.ints[PLAN_NW, j]))
    refresh(w.layout, w.plants, w.now, jobs.ints[HALL, j])
    jobs.ints[MODE, j], jobs.ints[PLAN_NW, j] = mode, plan_nw
    _redraw(w, j, mode, now_s)
    jobs.sizes[VERSION] += 1


@kernel
def put_measured(w: World, node_nw: Ints, speed: Floats, now_s: float) -> None:
    """Put measured power of nodes [N] and speeds of running jobs [J] in the place of those of the tables."""
    layout, draw, jobs = w.layout, w.draw, w.jobs
    draw.zone_nw[:] = 0
    draw.pool_nw[:] = 0
    for node in range(len(node_nw)):
        rack = layout.node_rack[node]
        for z in range(layout.racks[RACK_ZONES, rack], layout.racks[RACK_ZONES, rack + 1]):
            draw.zone_nw[layout.rack_zone[z]] += node_nw[node]
        draw.pool_nw[layout.racks[RACK_HALL, rack] * len(layout.type_gpus) + layout.racks[RACK_TYPE, rack]] += node_nw[
            node
        ]
    for i in range(jobs.sizes[N_RUNNING]):
        j = jobs.ints[RUNNING_LIST, i]
        left = left_at(jobs, j, now_s)
        jobs.floats[WORKED, j] += jobs.floats[LEFT, j] - left
        jobs.floats[LEFT, j], jobs.floats[UPDATED, j] = left, now_s
        jobs.floats[SPEED, j], jobs.floats[END_S, j] = speed[j], now_s + left / speed[j]


@inner_kernel
def next_end_s(w: World) -> float:
    """Return when the next run ends, infinite without one."""
    jobs, soonest = w.jobs, np.inf
    for i in range(jobs.sizes[N_RUNNING]):
        soonest = min(soonest, jobs.floats[END_S, jobs.ints[RUNNING_LIST, i]])
    return soonest


@inner_kernel
def end_due(w: World, now_s: float, tolerance_s: float) -> int:
    """End the runs whose work is done; return how many."""
    jobs, ended, i = w.jobs, 0, 0
    while i < jobs.sizes[N_RUNNING]:
        j = jobs.ints[RUNNING_LIST, i]
        if jobs.floats[END_S, j] > now_s + tolerance_s:
            i += 1
            continue
        _release(w, j, now_s)
        jobs.floats[WORKED, j] += jobs.floats[LEFT, j]
        jobs.floats[LEFT, j], jobs.floats[ENDED, j], jobs.ints[STATUS, j] = 0.0, now_s, DONE
        ended += 1
    return ended
