"""Peers of the optimizer: list schedulers and plain CP-SAT on the same instance, checked by the same verifier."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from powerhall_optimizer.problem.arrays import Problem, Schedule


def _largest(problem: Problem, job: int) -> float:
    option = problem.options_of(job)[0]
    return max(a / max(1, int(problem.capacity[r].max())) for r, a in problem.uses_of(option))


def _submitted(problem: Problem) -> list[int]:
    """Jobs in the order they become known: running ones, then by release, then by number."""
    first = np.array([int(problem.option_earliest[problem.options_of(j)[0]]) for j in range(problem.jobs)])
    return np.lexsort((np.arange(problem.jobs), first, problem.job_wait_value * (problem.job_wait_value < 0))).tolist()


def _density(problem: Problem) -> list[int]:
    rate = np.array(
        [int(problem.option_rate[problem.options_of(j)[0]]) / _largest(problem, j) for j in range(problem.jobs)]
    )
    return np.lexsort((-rate, problem.job_wait_value * (problem.job_wait_value < 0))).tolist()


def _first_starts(problem: Problem, free: np.ndarray, option: int, earliest: int) -> int:
    """Earliest slot from which the option fits to its end (or to the horizon), -1 when there is none."""
    duration = int(problem.option_duration[option])
    ok = np.ones(problem.slots, bool)
    for r, amount in problem.uses_of(option):
        ok &= free[r] >= amount
    bad = np.concatenate(([0], np.cumsum(~ok)))
    start = np.arange(max(earliest, int(problem.option_earliest[option])), int(problem.option_latest[option]) + 1)
    if not len(start):
        return -1
    fits = bad[np.minimum(start + duration, problem.slots)] == bad[start]
    return int(start[fits.argmax()]) if fits.any() else -1


def list_schedule(problem: Problem, order: list[int], modes: int | None, until: float, *, strict: bool) -> Schedule:
    """Each job at its earliest fit over halls in one mode; strict: never before an earlier job of the list."""
    free = problem.capacity.copy()
    schedule, clock = Schedule.empty(problem.jobs), 0
    for job in order:
        if time.monotonic() > until:
            break
        must = problem.job_wait_value[job] < 0
        mine = [o for o in problem.options_of(job) if must or problem.option_label[o] % 4 == (modes or 0)]
        found = [
            (s, o) for o in mine if (s := _first_starts(problem, free, o, 0 if must or not strict else clock)) >= 0
        ]
        if not found:
            continue
        start, option = min(found)
        clock = max(clock, start) if not must else clock
        schedule.option[job], schedule.start[job] = option, start
        stop = start + int(problem.option_duration[option])
        for r, amount in problem.uses_of(option):
            free[r, start:stop] -= amount
    return schedule


def plain_cpsat(problem: Problem, seconds: float, workers: int, most_intervals: int = 400_000) -> Schedule | None:
    """The textbook OR-Tools model: optional intervals, one cumulative per resource, capacity steps as fixed intervals.

    A decision counts its value at its earliest start: the objective stays linear in the Booleans.
    """
    from ortools.sat.python import cp_model

    if problem.options > most_intervals:
        return None
    began = time.monotonic()
    model = cp_model.CpModel()
    starts, present, terms = [], [], []
    by_resource: dict[int, tuple[list, list]] = {r: ([], []) for r in range(problem.resources)}
    for job in range(problem.jobs):
        chosen = []
        for o in problem.options_of(job):
            duration = int(problem.option_duration[o])
            s = model.new_int_var(int(problem.option_earliest[o]), int(problem.option_latest[o]), "")
            x = model.new_bool_var("")
            interval = model.new_optional_fixed_size_interval_var(s, duration, x, "")
            terms.append((x, int(problem.values(job, o)[0])))
            starts.append(s)
            present.append(x)
            chosen.append(x)
            for r, amount in problem.uses_of(o):
                by_resource[r][0].append(interval)
                by_resource[r][1].append(amount)
        if chosen:
            (model.add_exactly_one if problem.job_wait_value[job] < 0 else model.add_at_most_one)(chosen)
        if time.monotonic() - began > seconds:
            return None
    for r, (intervals, amounts) in by_resource.items():
        top = int(problem.capacity[r].max())
        for t in range(problem.slots):
            if top > problem.capacity[r, t]:
                intervals.append(model.new_fixed_size_interval_var(t, 1, ""))
                amounts.append(top - int(problem.capacity[r, t]))
        model.add_cumulative(intervals, amounts, top)
    model.maximize(sum(v * x for x, v in terms))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.max_time_in_seconds = max(0.1, seconds - (time.monotonic() - began))
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    schedule, o = Schedule.empty(problem.jobs), 0
    for job in range(problem.jobs):
        for o in problem.options_of(job):
            if solver.boolean_value(present[o]):
                schedule.option[job], schedule.start[job] = o, solver.value(starts[o])
    return schedule


def peers(problem: Problem, seconds: float, workers: int, cpsat: bool) -> dict[str, Callable[[], Schedule | None]]:
    """Name and call of every peer; each call ends after about `seconds`."""

    def timed(order: Callable[[Problem], list[int]], mode: int, strict: bool) -> Callable[[], Schedule]:
        return lambda: list_schedule(problem, order(problem), mode, time.monotonic() + seconds, strict=strict)

    found: dict[str, Callable[[], Schedule | None]] = {
        "fcfs": timed(_submitted, 0, True),
        "easy_backfill": timed(_submitted, 0, False),
        "weight_density": timed(_density, 0, False),
        "uniform_cap": timed(_density, 2, False),
    }
    if cpsat:
        found["cpsat_plain"] = lambda: plain_cpsat(problem, seconds, workers)
    return found
