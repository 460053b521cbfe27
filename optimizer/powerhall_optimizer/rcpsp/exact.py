"""The whole project as one CP-SAT model (OR-Tools): proves lower bounds and finds schedules below a limit."""

import math
from dataclasses import dataclass
from typing import Protocol

from ortools.sat.python import cp_model

from powerhall_optimizer.rcpsp.arrays import Arrays
from powerhall_optimizer.rcpsp.instance import Instance, Schedule

__all__ = ["Exact", "Found", "Report"]

_FAMILIES = ("objective_lb_search_no_lp", "quick_restart_no_lp", "no_lp", "quick_restart")
"""Search strategies in the order in which workers are given out; the first raises the bound from below."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one solve brought: a proved lower bound, and a schedule where it found one."""

    lower: int
    schedule: Schedule | None


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

    def __init__(self, instance: Instance, arrays: Arrays, lower: int, upper: int) -> None:
        """Build the model; a makespan of `upper` is taken as known."""
        self._lower = lower
        self._upper = upper
        self._model = cp_model.CpModel()
        self._starts = _starts(self._model, arrays, upper - 1)
        easy = max(int(arrays.tails.max()), min(lower, upper - 1) - _RUN_UP)
        self._makespan = self._model.new_int_var(easy, upper - 1, "makespan")
        _order(self._model, instance, self._starts, self._makespan)
        _resources(self._model, instance, self._starts)
        self._model.minimize(self._makespan)
        self._solver = cp_model.CpSolver()

    def hint(self, schedule: Schedule) -> None:
        """Give the search a schedule to stay near to."""
        for var, start in zip(self._starts, schedule.starts, strict=True):
            self._model.add_hint(var, start)

    def stop(self) -> None:
        """Let the running solve end soon; what it has proved stays."""
        self._solver.stop_search()

    def solve(self, seconds: float, workers: int, seed: int, report: Report) -> Found:
        """Run until proved, stopped or out of time; tell `report` of bounds and schedules as they come."""
        parameters = self._solver.parameters
        parameters.max_time_in_seconds = max(seconds, 0.01)
        parameters.num_workers = workers
        parameters.random_seed = seed
        parameters.linearization_level = 0
        parameters.subsolvers.extend(_FAMILIES[:workers])
        self._solver.best_bound_callback = lambda bound: report.bound(_whole(bound))
        status = self._solver.solve(self._model, _Forward(self._starts, report))
        if status == cp_model.INFEASIBLE:
            return Found(self._upper, None)
        lower = max(self._lower, _whole(self._solver.best_objective_bound))
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return Found(lower, Schedule(tuple(int(self._solver.value(var)) for var in self._starts)))
        return Found(lower, None)


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


def _order(
    model: cp_model.CpModel, instance: Instance, starts: list[cp_model.IntVar], makespan: cp_model.IntVar
) -> None:
    """Precedence, and the makespan behind the tasks without successors."""
    for task, following in enumerate(instance.successors):
        finish = starts[task] + instance.durations[task]
        for other in following:
            model.add(starts[other] >= finish)
        if not following:
            model.add(makespan >= finish)


def _resources(model: cp_model.CpModel, instance: Instance, starts: list[cp_model.IntVar]) -> None:
    """One cumulative for each resource over the tasks that use it."""
    intervals = [
        model.new_fixed_size_interval_var(start, duration, f"task_{task + 1}")
        for task, (start, duration) in enumerate(zip(starts, instance.durations, strict=True))
    ]
    for resource, capacity in enumerate(instance.capacities):
        users = [task for task in range(instance.size) if instance.demands[task][resource] > 0]
        demands = [instance.demands[task][resource] for task in users]
        model.add_cumulative([intervals[task] for task in users], demands, capacity)
