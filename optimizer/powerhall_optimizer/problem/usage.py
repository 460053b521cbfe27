"""The usage of every resource in every slot under a schedule, and whether an option fits beside it.

Usage is a sum over jobs, but at the meter of a site: there it follows from the IT power of the halls by their curves.
"""

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.problem.meter import curve_power_w, rises_w, slots_of

__all__ = ["add_usage", "count_at_meter", "meter_rise", "over_limit", "usage_of"]


def usage_of(problem: Problem, schedule: Schedule) -> Ints:
    """Return the usage of every resource in every slot."""
    change = np.zeros((problem.resources, problem.slots + 1), np.int64)
    job = np.flatnonzero(schedule.option >= 0)
    option, start = schedule.option[job], schedule.start[job]
    counts = problem.option_uses[option + 1] - problem.option_uses[option]
    offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    entry = np.repeat(problem.option_uses[option], counts) + offset
    begin = np.repeat(start, counts)
    end = np.minimum(problem.slots, begin + np.repeat(problem.option_duration[option], counts))
    np.add.at(change, (problem.use_resource[entry], begin), problem.use_amount[entry])
    np.add.at(change, (problem.use_resource[entry], end), -problem.use_amount[entry])
    usage: Ints = np.cumsum(change[:, :-1], axis=1)
    count_at_meter(problem, usage)
    return usage


def count_at_meter(problem: Problem, usage: Ints) -> None:
    """Write the usage at the meters that follows from the IT power of the pools."""
    curves = problem.curves
    usage[curves.meter_row] = 0
    for hall, row in enumerate(curves.meter_row.tolist()):
        usage[row] += rises_w(curves, hall, usage)


def add_usage(problem: Problem, usage: Ints, option: int, span: tuple[int, int], sign: int = 1) -> None:
    """Add the usage of an option in the slots of a span (first, behind the last), or take it off again (-1)."""
    hall = _hall_of(problem, option)
    part = usage[:, span[0] : span[1]]
    curves = slots_of(problem.curves, span)
    before = None if hall is None else rises_w(curves, hall, part)
    for resource, amount in problem.uses_of(option):
        part[resource] += sign * amount
    if hall is not None and before is not None:
        part[curves.meter_row[hall]] += rises_w(curves, hall, part) - before


def meter_rise(problem: Problem, usage: Ints, option: int) -> tuple[int, Ints] | None:
    """Return the meter's resource and how much the option would raise its usage in each slot; None without a meter."""
    curves = problem.curves
    hall = _hall_of(problem, option)
    if hall is None:
        return None
    added = dict(problem.uses_of(option))
    rows = [int(row) for row in curves.pool_row[curves.first[hall] : curves.first[hall + 1]]]
    after = curve_power_w(curves, hall, [usage[row] + added.get(row, 0) for row in rows])
    rise: Ints = after - curves.idle_w[hall] - rises_w(curves, hall, usage)
    return int(curves.meter_row[hall]), rise


def over_limit(problem: Problem, usage: Ints, option: int) -> npt.NDArray[np.bool_]:
    """Return in which slots the option would break a limit beside a usage: [T]."""
    over = np.zeros(problem.slots, bool)
    hall = _hall_of(problem, option)
    for resource, amount in problem.uses_of(option):
        over |= usage[resource] + amount > problem.capacity[resource]
        if hall is not None and problem.curves.row_pool[resource] >= 0:
            row = problem.curves.meter_row[hall]
            free = problem.capacity[row] - usage[row]
            over |= free < amount
            close = ~over & (free < amount * problem.curves.steepest[hall] + _ROUNDINGS)
            if close.any() and (rise := meter_rise(problem, usage, option)) is not None:
                over |= rise[1] > free
    return over


_ROUNDINGS = 16
"""W by which roundings of tables may let an option add more than by the steepest slope."""


def _hall_of(problem: Problem, option: int) -> int | None:
    """Return the hall (curve) whose power at the meter an option adds to."""
    for use in range(int(problem.option_uses[option]), int(problem.option_uses[option + 1])):
        pool = int(problem.curves.row_pool[problem.use_resource[use]])
        if pool >= 0:
            return int(problem.curves.pool_curve[pool])
    return None
