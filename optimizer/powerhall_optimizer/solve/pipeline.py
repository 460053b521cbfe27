"""The pipeline from problem to plan: repair, prices, greedy, neighbourhood search, CP-SAT; each stage has its time.

The result always carries a feasible schedule, at worst "everything waits"; the bound is proven by its certificate, or
by CP-SAT when a small problem was solved whole (`bound_from`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from powerhall_optimizer.problem.arrays import PriceCertificate, Problem, Schedule
from powerhall_optimizer.solve.cp_sat_exact import CpSatExact, whole_cells
from powerhall_optimizer.solve.cp_sat_windows import CpSatWindows
from powerhall_optimizer.solve.neighbourhood_search import NeighbourhoodSearch
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.price_greedy import PriceGreedy
from powerhall_optimizer.solve.prices import Prices, evaluate
from powerhall_optimizer.solve.repair import Repair
from powerhall_optimizer.solve.stage import SolveBudget, SolverState, Stage, certificate_of, gap

__all__ = ["SolveResult", "StageReport", "solve"]

Log = Callable[[str], None]
CLOSED = 1e-8  # gaps below it are rounding


@dataclass(frozen=True, slots=True)
class StageReport:
    """Report of one stage: seconds of wall clock, and value and bound after it."""

    name: str
    seconds: float
    value: int
    bound: float


@dataclass(frozen=True, slots=True)
class SolveResult:
    """The plan and its proof. `bound` >= the value of every schedule; `gap` = (bound - value) / |value|."""

    schedule: Schedule
    value: int
    bound: int
    gap: float
    certificate: PriceCertificate
    certificate_bound: int  # bound from the prices alone
    bound_from: str  # "prices" or "cp-sat"
    stages: tuple[StageReport, ...]


def solve(
    problem: Problem,
    *,
    seconds: float = 60.0,
    target_gap: float = 0.0,
    seed: int = 0,
    workers: int = 2,
    warm: PriceCertificate | None = None,
    previous: Schedule | None = None,
    stop: Callable[[], bool] = lambda: False,
    log: Log = lambda _line: None,
    iterations: int | None = None,
) -> SolveResult:
    """Best schedule within `seconds`, earlier at `target_gap` or once `stop()` is true.

    `warm` prices and the `previous` schedule (in this problem's option numbers) are starting points, never trusted.
    With `iterations` every stage does a fixed amount of work instead of watching the clock: the same problem, seed and
    workers then give the same result. Takes a problem that passed `Problem.check`.
    """
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        budget = SolveBudget(began + seconds, stop, pool, workers, seed, target_gap, iterations)
        state = _start(problem, warm)
        reports: list[StageReport] = []
        for name, stage, share in _plan(problem, previous, warm is not None):
            if reports and (stop() or state.gap <= max(target_gap, CLOSED)):
                break
            at = time.monotonic()
            state = stage.run(state, budget.part(_seconds(name, share, seconds, budget)))
            reports.append(StageReport(name, time.monotonic() - at, state.value, state.bound))
            log(f"stage={name} seconds={reports[-1].seconds:.2f} value={state.value} bound={state.bound:.0f}")
        return _result(problem, state, budget, tuple(reports))


def _seconds(name: str, share: float, seconds: float, budget: SolveBudget) -> float:
    """Share of the whole time; the search gets its share of the remaining time."""
    return share * (budget.left() if name == "search" else seconds)


def _start(problem: Problem, warm: PriceCertificate | None) -> SolverState:
    presolved = presolve(problem)
    waiting = Schedule.empty(problem.jobs)
    state = SolverState(presolved, waiting, int(problem.job_wait_value.sum()))
    if warm is not None and warm.price.shape == problem.capacity.shape and (warm.price >= 0).all():
        state = replace(state, price=warm.price / 2.0**warm.scale_bits)
    return state


def _plan(problem: Problem, previous: Schedule | None, warm: bool) -> list[tuple[str, Stage, float]]:
    """Stages in order, each with its share of the time."""
    small = whole_cells(problem) <= CpSatExact().most_cells
    stages: list[tuple[str, Stage, float]] = [("repair", Repair(previous), 0.2)]
    stages.append(("prices", Prices(), 0.1 if small else 0.2 if warm else 0.25))
    stages.append(("greedy", PriceGreedy(), 0.12))
    stages.append(("search", NeighbourhoodSearch(), 0.1 if small else 0.97))
    stages.append(("exact", CpSatExact(), 1.0) if small else ("windows", CpSatWindows(), 1.0))
    return stages


def _result(problem: Problem, state: SolverState, budget: SolveBudget, reports: tuple[StageReport, ...]) -> SolveResult:
    price = state.price if state.price is not None else np.zeros(problem.capacity.shape)
    certificate = certificate_of(problem, price)
    at = evaluate(state.presolved, certificate.price / 2.0**certificate.scale_bits, budget)
    proved = math.floor(at.bound * (1 + 1e-9 * math.copysign(1, at.bound))) + 1
    bound = min(proved, math.floor(state.bound)) if math.isfinite(state.bound) else proved
    source = "cp-sat" if bound < proved * (1 - 1e-8) - 2 else "prices"
    bound = bound if source == "cp-sat" else proved
    return SolveResult(
        state.schedule, state.value, bound, gap(state.value, bound), certificate, proved, source, reports
    )
