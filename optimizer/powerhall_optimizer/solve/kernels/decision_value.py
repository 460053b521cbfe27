"""The value of decisions, by the formula of `problem.arrays`; energy comes in through prefix sums."""

from __future__ import annotations

from powerhall_optimizer.jit import inner_kernel, kernel
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.kernels.kernel_arrays import (
    BONUS,
    DEADLINE,
    DELAY_COST,
    LATE_COST,
    LATE_FINE,
    PLANNED_START,
    RATE,
    SHIFT_COST,
    WAIT_VALUE,
    Floats,
    ProblemArrays,
)

__all__ = ["decision_value", "priced_value", "priced_values", "total_value"]


@inner_kernel
def decision_value(problem: ProblemArrays, job: int, option: int, start: int, slots: int) -> float:
    """Return the value of one decision without energy; `slots` is the horizon T."""
    terms = problem.job_value[job]
    worth = problem.option_value[option]
    end = start + problem.option_duration[option]
    value = worth[BONUS] + worth[RATE] * (min(end, slots) - start) - terms[DELAY_COST] * end
    if end > terms[DEADLINE]:
        value -= terms[LATE_COST] * (end - terms[DEADLINE]) + terms[LATE_FINE]
    if terms[PLANNED_START] >= 0:
        value -= terms[SHIFT_COST] * abs(start - terms[PLANNED_START])
    return float(value)


@inner_kernel
def priced_value(problem: ProblemArrays, job: int, option: int, start: int, prefix: Floats, slots: int) -> float:
    """Return the value of one decision less its price, or the wait value for option -1; `prefix` is [P, T + 1]."""
    if option < 0:
        return float(problem.job_value[job, WAIT_VALUE])
    row = prefix[problem.option_profile[option]]
    end = min(slots, start + problem.option_duration[option])
    price = problem.option_multiple[option] * (row[end] - row[start])
    return float(decision_value(problem, job, option, start, slots) - price)


@kernel
def priced_values(problem: ProblemArrays, option: Ints, start: Ints, prefix: Floats, result: Floats) -> None:
    """Write the value less price of every job's decision into `result` [J]."""
    slots = prefix.shape[1] - 1
    for job in range(len(option)):
        result[job] = priced_value(problem, job, option[job], start[job], prefix, slots)


@kernel
def total_value(problem: ProblemArrays, option: Ints, start: Ints, energy: Floats) -> float:
    """Return the value of a schedule; `energy` [P, T + 1] holds prefix sums of energy cost only."""
    slots = energy.shape[1] - 1
    total = 0.0
    for job in range(len(option)):
        total += priced_value(problem, job, option[job], start[job], energy, slots)
    return total
