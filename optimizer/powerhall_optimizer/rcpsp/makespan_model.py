"""The whole project as one CP-SAT model (OR-Tools): proves lower bounds and finds schedules below a limit."""

import math
from typing import Protocol

from ortools.sat.python import cp_model

from powerhall_optimizer.rcpsp.instance import ProjectSchedule
from powerhall_optimizer.rcpsp.project_arrays import ProjectArrays

__all__ = ["MakespanModel", "ProgressListener"]

_CLIMBING = ("objective_lb_search_no_lp", "quick_restart_no_lp", "no_lp", "quick_restart")
"""Search strategies in the order in which workers are given out; the first raises the bound from below."""
_DECIDING = ("no_lp", "quick_restart_no_lp", "quick_restart")
"""The same where the question is only whether one makespan can be reached."""
_RUN_UP = 3
"""A climb starts this far below the known bound: refuting easy makespans first teaches the search."""


class ProgressListener(Protocol):
    """Receiver of bounds and schedules of a running solve; called from the solver's threads."""

    def bound(self, lower: int) -> None:
        """A lower bound has been proved for schedules shorter than the known one."""

    def schedule(self, schedule: ProjectSchedule) -> None:
        """A shorter schedule was found."""


class MakespanModel:
    """One solve of `makespan <= upper - 1`; `stop` may be called from another thread.

    With `climb` it raises the bound from `lower` on until it meets a schedule; without, it decides whether `upper - 1`
    can be reached and stops at the first schedule. A climb needs at least two makespans to be open: with a single one
    left CP-SAT drops the objective, and the strategy then gets nowhere.

    The propagator of pairs within a cumulative stays off: with it CP-SAT 9.15 now and then refutes a makespan that has
    a schedule, on the mirror of PSPLIB's j6037_3 in 4 to 8 of 100 climbs. Probing, which brought most of that about,
    stays off as well. The counts, and what the newer conflict resolution gains, are in docs/reference/rcpsp.md.
    """

    def __init__(self, arrays: ProjectArrays, lower: int, upper: int, *, climb: bool) -> None:
        """Build the model; a makespan of `upper` is taken as known."""
        self._upper = upper
        self._climb = climb
        self._model = cp_model.CpModel()
        self._starts = _starts(self._model, arrays, upper - 1)
        easy = max(int(arrays.tails.max()), min(lower, upper - 1) - _RUN_UP)
        makespan = self._model.new_int_var(easy, upper - 1, "makespan") if climb else None
        _order(self._model, arrays, self._starts, makespan)
        _resources(self._model, arrays, self._starts)
        if makespan is not None:
            self._model.minimize(makespan)
        self._solver = cp_model.CpSolver()

    def stop(self) -> None:
        """Let the running solve end soon; its proved bounds stay."""
        self._solver.stop_search()

    def solve(self, seconds: float, workers: int, seed: int, report: ProgressListener) -> None:
        """Run until proved, stopped or out of time; report bounds and schedules as they come."""
        parameters = self._solver.parameters
        parameters.max_time_in_seconds = max(seconds, 0.01)
        parameters.num_workers = workers
        parameters.random_seed = seed
        parameters.linearization_level = 0
        parameters.use_disjunctive_constraint_in_cumulative = False
        parameters.use_sat_inprocessing = False
        parameters.cp_model_probing_level = 0
        parameters.use_new_integer_conflict_resolution = True
        parameters.subsolvers.extend((_CLIMBING if self._climb else _DECIDING)[:workers])
        self._solver.best_bound_callback = lambda bound: report.bound(_whole(bound))
        status = self._solver.solve(self._model, _Forward(self._starts, report))
        if status == cp_model.INFEASIBLE:
            report.bound(self._upper)
        elif self._climb:
            report.bound(_whole(self._solver.best_objective_bound))


class _Forward(cp_model.CpSolverSolutionCallback):
    """Pass every schedule on to the listener."""

    def __init__(self, starts: list[cp_model.IntVar], report: ProgressListener) -> None:
        super().__init__()
        self._starts = starts
        self._report = report

    def on_solution_callback(self) -> None:
        """Called by CP-SAT for every better schedule."""
        self._report.schedule(ProjectSchedule(tuple(int(self.value(var)) for var in self._starts)))


def _whole(bound: float) -> int:
    """Round a proved bound up to whole periods; the slack forgives floating-point noise below a whole number."""
    return math.ceil(bound - 1e-6)


def _starts(model: cp_model.CpModel, arrays: ProjectArrays, latest: int) -> list[cp_model.IntVar]:
    """One start for each task, between its head and its tail."""
    return [
        model.new_int_var(int(head), latest - int(tail), f"start_{task + 1}")
        for task, (head, tail) in enumerate(zip(arrays.heads, arrays.tails, strict=True))
    ]


def _order(
    model: cp_model.CpModel, arrays: ProjectArrays, starts: list[cp_model.IntVar], makespan: cp_model.IntVar | None
) -> None:
    """Precedence, and the makespan, where it is wanted, behind the tasks without successors."""
    for task, start in enumerate(starts):
        finish = start + int(arrays.durations[task])
        following = arrays.after[arrays.after_at[task] : arrays.after_at[task + 1]]
        for other in following:
            model.add(starts[other] >= finish)
        if makespan is not None and not len(following):
            model.add(makespan >= finish)


def _resources(model: cp_model.CpModel, arrays: ProjectArrays, starts: list[cp_model.IntVar]) -> None:
    """One cumulative for each resource over the tasks that use it."""
    intervals = [
        model.new_fixed_size_interval_var(start, int(duration), f"task_{task + 1}")
        for task, (start, duration) in enumerate(zip(starts, arrays.durations, strict=True))
    ]
    for resource, capacity in enumerate(arrays.capacities):
        demands = [int(demand) for demand in arrays.demands[:, resource]]
        users = [task for task, demand in enumerate(demands) if demand > 0]
        model.add_cumulative([intervals[task] for task in users], [demands[task] for task in users], int(capacity))
