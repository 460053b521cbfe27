"""CP-SAT model of a problem, or of some of its jobs with the others fixed, over decisions (option, start).

Every decision is a Boolean; a job takes at most one; every resource and slot that could overflow is one linear row.
The model is exact and meant for small problems and for windows of the neighbourhood search; it grows with
decisions x duration, so callers bound its size first (`cp_sat_exact.whole_cells`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.problem.meter import slot_power_w
from powerhall_optimizer.problem.usage import usage_of
from powerhall_optimizer.solve.stage import SolveBudget

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

SMALLEST_SECONDS = 0.05
_ROUNDINGS = 16
"""W by which roundings of tables may lift halls above their chords."""
Rows = dict[tuple[int, int], dict[int, int]]
"""Per resource and slot the amounts of the decisions, by their numbers."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One Boolean of the model."""

    job: int
    option: int
    start: int
    value: int


@dataclass(frozen=True, slots=True)
class ModelSolution:
    """Best schedule found for the jobs of the model, and the solver's bound on their total value."""

    schedule: Schedule
    value: int
    bound: float
    optimal: bool


def decisions_of(problem: Problem, job: int) -> list[Decision]:
    """All decisions of a job with a higher value than waiting."""
    wait = int(problem.job_wait_value[job])
    found = []
    for option in problem.options_of(job):
        first = int(problem.option_earliest[option])
        values = problem.values(job, option).tolist()
        found += [Decision(job, option, first + i, value) for i, value in enumerate(values) if value > wait]
    return found


def solve_decisions(  # noqa: PLR0917
    problem: Problem,
    jobs: Sequence[int],
    decisions: Sequence[Decision],
    free: Ints,
    hint: Schedule,
    budget: SolveBudget,
    work: float = math.inf,
) -> ModelSolution | None:
    """Best decisions for `jobs` within `free` [R, T], the others as in `hint`; None when there is none in time.

    `work` is CP-SAT's deterministic time; its threads take turns, so that the same work gives the same answer.
    """
    from ortools.sat.python import cp_model  # half a second, which most rounds do not need

    seconds = budget.left()
    if budget.iterations is None and seconds < SMALLEST_SECONDS:
        budget.ledger.cut = True
        return None
    model = cp_model.CpModel()
    chosen = [model.new_bool_var("") for _ in decisions]
    _one_decision_per_job(model, jobs, decisions, chosen)
    add_capacities(model, problem, decisions, chosen, free)
    wait = {job: int(problem.job_wait_value[job]) for job in jobs}
    model.maximize(sum((d.value - wait[d.job]) * x for d, x in zip(decisions, chosen, strict=True)))
    for d, x in zip(decisions, chosen, strict=True):
        model.add_hint(x, bool(hint.option[d.job] == d.option and hint.start[d.job] == d.start))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = budget.workers
    solver.parameters.random_seed = budget.seed & 0x7FFFFFFF
    if budget.iterations is not None:
        work = float(budget.iterations)
    solver.parameters.max_deterministic_time = work
    solver.parameters.interleave_search = budget.workers > 1
    if budget.iterations is None:
        solver.parameters.max_time_in_seconds = seconds
    status = solver.solve(model, _stopper(budget))
    if status != cp_model.OPTIMAL and (budget.stop() or (budget.iterations is None and solver.wall_time >= seconds)):
        budget.ledger.cut = True
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    option, start = hint.option.copy(), hint.start.copy()
    option[list(jobs)] = start[list(jobs)] = -1
    for d, x in zip(decisions, chosen, strict=True):
        if solver.boolean_value(x):
            option[d.job], start[d.job] = d.option, d.start
    schedule = Schedule(option, start)
    if not _holds_at_meter(problem, schedule):
        return None
    base = sum(wait.values())
    value = base + round(solver.objective_value)
    return ModelSolution(schedule, value, base + solver.best_objective_bound, status == cp_model.OPTIMAL)


def _stopper(budget: SolveBudget) -> cp_model.CpSolverSolutionCallback:
    """Return a callback that ends the search at the next solution once the stop flag is up."""
    from ortools.sat.python import cp_model

    class Stopper(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            if budget.stop():
                self.stop_search()

    return Stopper()


def _one_decision_per_job(
    model: cp_model.CpModel, jobs: Sequence[int], decisions: Sequence[Decision], chosen: list[cp_model.IntVar]
) -> None:
    of_job: dict[int, list[cp_model.IntVar]] = {job: [] for job in jobs}
    for d, x in zip(decisions, chosen, strict=True):
        of_job[d.job].append(x)
    for group in of_job.values():
        if group:
            model.add_at_most_one(group)


def add_capacities(
    model: cp_model.CpModel,
    problem: Problem,
    decisions: Sequence[Decision],
    chosen: list[cp_model.IntVar],
    free: Ints,
) -> None:
    """One row per resource and slot; a slot whose decisions all ran in the one before, with no less room, is free."""
    from ortools.sat.python import cp_model

    rows: Rows = {}
    for index, d in enumerate(decisions):
        stop = min(problem.slots, d.start + int(problem.option_duration[d.option]))
        for resource, amount in problem.uses_of(d.option):
            for slot in range(d.start, stop):
                rows.setdefault((resource, slot), {})[index] = amount
    chords = meter_chords(problem, rows, free)
    rows = {key: terms for key, terms in rows.items() if problem.curves.row_pool[key[0]] < 0} | chords
    for (resource, slot), terms in rows.items():
        room = int(free[resource, slot]) - (_ROUNDINGS if (resource, slot) in chords else 0)
        if sum(terms.values()) <= room:
            continue
        before = rows.get((resource, slot - 1), {})
        if terms.keys() <= before.keys() and int(free[resource, slot - 1]) <= room:
            continue
        indices = list(terms)
        model.add(cp_model.LinearExpr.weighted_sum([chosen[i] for i in indices], list(terms.values())) <= room)


def _holds_at_meter(problem: Problem, schedule: Schedule) -> bool:
    """Whether a schedule keeps the limits at meters; chords of a curve that is not convex do not promise it."""
    meters = np.unique(problem.curves.meter_row)
    return not len(meters) or bool((usage_of(problem, schedule)[meters] <= problem.capacity[meters]).all())


def meter_chords(problem: Problem, rows: Rows, free: Ints) -> Rows:
    """Return the rows of limits at meters: chords of the halls' curves from what runs without the model's jobs.

    A chord ends at the most that the decisions can add in its hall and slot, or that the limit leaves; with several
    node types it is the plane through these ends, above the curve wherever they add no more than that together.
    """
    curves = problem.curves
    found: Rows = {}
    parts: dict[tuple[int, int], list[tuple[int, dict[int, int]]]] = {}
    for (resource, slot), terms in rows.items():
        pool = int(curves.row_pool[resource])
        if pool >= 0:
            parts.setdefault((int(curves.pool_curve[pool]), slot), []).append((pool, terms))
    for (hall, slot), pools in parts.items():
        meter = int(curves.meter_row[hall])
        own = range(int(curves.first[hall]), int(curves.first[hall + 1]))
        used = [int(curves.pool_most[p] - free[curves.pool_row[p], slot]) for p in own]
        most = min(sum(sum(terms.values()) for _, terms in pools), int(free[meter, slot]))
        start_w = slot_power_w(curves, hall, slot, used)
        for pool, terms in pools:
            at = [watts + most * (p == pool) for p, watts in zip(own, used, strict=True)]
            rise = slot_power_w(curves, hall, slot, at) - start_w
            row = found.setdefault((meter, slot), {})
            row |= {index: -(-amount * rise // max(1, most)) for index, amount in terms.items()}
    return found


def free_without(problem: Problem, schedule: Schedule, jobs: Sequence[int]) -> Ints:
    """Capacity left when `jobs` are taken out of the schedule."""
    option, start = schedule.option.copy(), schedule.start.copy()
    option[list(jobs)] = start[list(jobs)] = -1
    left: Ints = problem.capacity - usage_of(problem, Schedule(option, start))
    return left
