"""The whole project as one CP-SAT model (OR-Tools): proves lower bounds and finds schedules below a limit."""

import math
from typing import Protocol

from ortools.sat.python import cp_model

from powerhall_optimizer.rcpsp.arrays import Arrays
from powerhall_optimizer.rcpsp.instance import Schedule

__all__ = ["Exact", "Report"]

_FAMILIES = ("objective_lb_search_no_lp", "quick_restart_no_lp", "no_lp", "quick_restart")
"""Search strategies in the order in which workers are given out; the first raises the bound from below."""
_FAMILIES_OF_ONE = ("no_lp", "quick_restart_no_lp", "quick_restart")
"""The same where a single makespan is left and the question is only whether it can be reached."""
_RUN_UP = 3
"""The model starts this far below the known bound: refuting easy makespans first teaches the search, and with a single
makespan left CP-SAT would drop the objective and with it the strategy that raises the bound."""


class Report(Protocol):
    """Who listens to a running solve; called from the solver's threads."""

    def bound(self, lower: int) -> None:
        """A lower bound has been proved for schedules shorter than the known one."""

    def schedule(self, schedule: Schedule) -> None:
        """A shorter schedule was found."""


class Exact:
    """One solve of `lower <= makespan <= upper - 1`; `stop` may be called from another thread."""

    def __init__(self, arrays: Arrays, lower: int, upper: int) -> None:
        """Build the model; a makespan of `upper` is taken as known."""
        self._upper = upper
        self._model = cp_model.CpModel()
        self._starts = _starts(self._model, arrays, upper - 1)
        easy = max(int(arrays.tails.max()), min(lower, upper - 1) - _RUN_UP)
        self._makespan = self._model.new_int_var(easy, upper - 1, "makespan")
        _order(self._model, arrays, self._starts, self._makespan)
        _resources(self._model, arrays, self._starts)
        self._families: tuple[str, ...] = _FAMILIES_OF_ONE
        if easy < upper - 1:
            self._families = _FAMILIES
            self._model.minimize(self._makespan)
        self._solver = cp_model.CpSolver()

    def stop(self) -> None:
        """Let the running solve end soon; what it has proved stays."""
        self._solver.stop_search()

    def solve(self, seconds: float, workers: int, seed: int, report: Report) -> None:
        """Run until proved, stopped or out of time; tell `report` of bounds and schedules as they come."""
        parameters = self._solver.parameters
        parameters.max_time_in_seconds = max(seconds, 0.01)
        parameters.num_workers = workers
        parameters.random_seed = seed
        parameters.linearization_level = 0
        parameters.subsolvers.extend(self._families[:workers])
        self._solver.best_bound_callback = lambda bound: report.bound(_whole(bound))
        status = self._solver.solve(self._model, _Forward(self._starts, report))
        if status == cp_model.INFEASIBLE:
            report.bound(self._upper)
        elif self._model.has_objective():
            report.bound(_whole(self._solver.best_objective_bound))


class _Forward(cp_model.CpSolverSolutionCallback):
    """Hands every schedule on while the search goes on."""

    def __init__(self, starts: list[cp_model.IntVar], report: Report) -> None:
        super().__init__()
        self._starts = starts
        self._report = report

    def on_solution_callback(self) -> None:
        """Called by CP-SAT for every better schedule."""
        self._report.schedule(Schedule(tuple(int(self.value(var)) for var in self._starts)))


def _whole(bound: float) -> int:
    """Round a proved bound up to whole periods; the slack forgives floating-point noise below a whole number."""
    return math.ceil(bound - 1e-6)


def _starts(model: cp_model.CpModel, arrays: Arrays, latest: int) -> list[cp_model.IntVar]:
    """One start for each task, between its head and its tail."""
    return [
        model.new_int_var(int(head), latest - int(tail), f"start_{task + 1}")
        for task, (head, tail) in enumerate(zip(arrays.heads, arrays.tails, strict=True))
    ]


def _order(model: cp_model.CpModel, arrays: Arrays, starts: list[cp_model.IntVar], makespan: cp_model.IntVar) -> None:
    """Precedence, and the makespan behind the tasks without successors."""
    for task, start in enumerate(starts):
        finish = start + int(arrays.durations[task])
        following = arrays.after[arrays.after_at[task] : arrays.after_at[task + 1]]
        for other in following:
            model.add(starts[other] >= finish)
        if not len(following):
            model.add(makespan >= finish)


def _resources(model: cp_model.CpModel, arrays: Arrays, starts: list[cp_model.IntVar]) -> None:
    """One cumulative for each resource over the tasks that use it."""
    intervals = [
        model.new_fixed_size_interval_var(start, int(duration), f"task_{task + 1}")
        for task, (start, duration) in enumerate(zip(starts, arrays.durations, strict=True))
    ]
    for resource, capacity in enumerate(arrays.capacities):
        demands = [int(demand) for demand in arrays.demands[:, resource]]
        users = [task for task, demand in enumerate(demands) if demand > 0]
        model.add_cumulative([intervals[task] for task in users], [demands[task] for task in users], int(capacity))
