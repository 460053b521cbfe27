"""CP-SAT model of a problem, or of some of its jobs with the others fixed, over decisions (option, start).

Every decision is a Boolean; a job takes at most one; every resource and slot that could overflow is one linear row.
The model is exact and meant for small problems and for windows of the neighbourhood search; it grows with
decisions x duration, so callers bound its size first (`cp_sat_exact.whole_cells`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ortools.sat.python import cp_model

from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.solve.stage import SolveBudget, usage_of

SMALLEST_SECONDS = 0.05


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
) -> ModelSolution | None:
    """Best decisions for `jobs` within `free` [R, T], the others as in `hint`; None when time runs out first."""
    seconds = budget.left()
    if budget.iterations is None and seconds < SMALLEST_SECONDS:
        return None
    model = cp_model.CpModel()
    chosen = [model.new_bool_var("") for _ in decisions]
    _one_decision_per_job(model, jobs, decisions, chosen)
    _capacities(model, problem, decisions, chosen, free)
    wait = {job: int(problem.job_wait_value[job]) for job in jobs}
    model.maximize(sum((d.value - wait[d.job]) * x for d, x in zip(decisions, chosen, strict=True)))
    for d, x in zip(decisions, chosen, strict=True):
        model.add_hint(x, bool(hint.option[d.job] == d.option and hint.start[d.job] == d.start))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = budget.workers
    solver.parameters.random_seed = budget.seed & 0x7FFFFFFF
    if budget.iterations is None:
        solver.parameters.max_time_in_seconds = seconds
    else:
        solver.parameters.max_deterministic_time = float(budget.iterations)
        solver.parameters.interleave_search = budget.workers > 1
    status = solver.solve(model, _Stopper(budget))
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    option, start = hint.option.copy(), hint.start.copy()
    option[list(jobs)] = start[list(jobs)] = -1
    for d, x in zip(decisions, chosen, strict=True):
        if solver.boolean_value(x):
            option[d.job], start[d.job] = d.option, d.start
    schedule = Schedule(option, start)
    base = sum(wait.values())
    value = base + round(solver.objective_value)
    return ModelSolution(schedule, value, base + solver.best_objective_bound, status == cp_model.OPTIMAL)


class _Stopper(cp_model.CpSolverSolutionCallback):
    """Ends the search at the next solution once the stop flag is up."""

    def __init__(self, budget: SolveBudget) -> None:
        super().__init__()
        self._budget = budget

    def on_solution_callback(self) -> None:
        """Called by CP-SAT for every better solution."""
        if self._budget.stop():
            self.stop_search()


def _one_decision_per_job(
    model: cp_model.CpModel, jobs: Sequence[int], decisions: Sequence[Decision], chosen: list[cp_model.IntVar]
) -> None:
    of_job: dict[int, list[cp_model.IntVar]] = {job: [] for job in jobs}
    for d, x in zip(decisions, chosen, strict=True):
        of_job[d.job].append(x)
    for group in of_job.values():
        if group:
            model.add_at_most_one(group)


def _capacities(
    model: cp_model.CpModel,
    problem: Problem,
    decisions: Sequence[Decision],
    chosen: list[cp_model.IntVar],
    free: Ints,
) -> None:
    """One row per resource and slot; a slot whose decisions all ran in the one before, with no less room, is free."""
    rows: dict[tuple[int, int], dict[int, int]] = {}
    for index, d in enumerate(decisions):
        stop = min(problem.slots, d.start + int(problem.option_duration[d.option]))
        for resource, amount in problem.uses_of(d.option):
            for slot in range(d.start, stop):
                rows.setdefault((resource, slot), {})[index] = amount
    for (resource, slot), terms in rows.items():
        room = int(free[resource, slot])
        if sum(terms.values()) <= room:
            continue
        before = rows.get((resource, slot - 1), {})
        if terms.keys() <= before.keys() and int(free[resource, slot - 1]) <= room:
            continue
        indices = list(terms)
        model.add(cp_model.LinearExpr.weighted_sum([chosen[i] for i in indices], list(terms.values())) <= room)


def free_without(problem: Problem, schedule: Schedule, jobs: Sequence[int]) -> Ints:
    """Capacity left when `jobs` are taken out of the schedule."""
    option, start = schedule.option.copy(), schedule.start.copy()
    option[list(jobs)] = start[list(jobs)] = -1
    left: Ints = problem.capacity - usage_of(problem, Schedule(option, start))
    return left
