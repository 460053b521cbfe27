"""The pipeline from problem to plan: repair, prices, greedy, neighbourhood search, CP-SAT; each stage has its time.

The result always carries a feasible schedule, at worst "everything waits"; the bound is proven by its certificate, or
by CP-SAT when a small problem was solved whole (`bound_from`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from powerhall_optimizer.problem.arrays import PriceCertificate, Problem, Schedule
from powerhall_optimizer.problem.certificate import unit_prices
from powerhall_optimizer.problem.standing import Standing
from powerhall_optimizer.solve.annealing import LEAST_DECODES, MOST_JOBS, Annealing
from powerhall_optimizer.solve.coarse_prices import FEW_STEPS, CoarsePrices
from powerhall_optimizer.solve.count_cuts import CountCuts, cut_certificate
from powerhall_optimizer.solve.cp_sat_exact import CpSatExact, whole_cells
from powerhall_optimizer.solve.cp_sat_windows import CpSatWindows
from powerhall_optimizer.solve.held import NearLastPlan
from powerhall_optimizer.solve.neighbourhood_search import NeighbourhoodSearch
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.price_greedy import PriceGreedy
from powerhall_optimizer.solve.price_step import PriceStep
from powerhall_optimizer.solve.prices import ROUNDING, Prices, evaluate
from powerhall_optimizer.solve.repair import Repair
from powerhall_optimizer.solve.result import SolveResult, StageReport
from powerhall_optimizer.solve.shards import ClusterPricing
from powerhall_optimizer.solve.stage import SolveBudget, SolverState, Stage, certificate_of, gap
from powerhall_optimizer.solve.work import Costs

__all__ = ["SolveResult", "StageReport", "solve"]

Log = Callable[[str], None]
WORK_SHARE = 0.85
"""Work in reference seconds per second of a solve: the rest is slack for a machine that is slower or busy."""
_PROVING = ("coarse_prices", "prices", "cuts")
"""Stages that make the bound."""
_NEAR_SHARE = 0.35
"""Part of the work that goes into staying near the last plan, where there is one."""
CLOSED = 1e-8  # gaps below it are rounding


def solve(
    problem: Problem,
    *,
    seconds: float = 60.0,
    target_gap: float = 0.0,
    seed: int = 0,
    workers: int = 2,
    warm: PriceCertificate | None = None,
    previous: Schedule | None = None,
    standing: Standing | None = None,
    stop: Callable[[], bool] = lambda: False,
    log: Log = lambda _line: None,
    iterations: int | None = None,
    work_s: float | None = None,
    progress: Callable[[SolveResult], None] | None = None,
    cuts: bool = True,
    pricing: ClusterPricing | None = None,
) -> SolveResult:
    """Best schedule within `seconds`, earlier at `target_gap` or once `stop()` is true.

    The stages do counted work of `work_s` reference seconds (0.85 of `seconds` without it; see `solve.work`): as long
    as no deadline cuts a stage short, the same problem, seed, workers and work give the same result.

    `warm` prices and the `previous` schedule (in this problem's option numbers) are starting points, never trusted.
    Without `cuts` the certificate prices the resources alone, as storage needs it.
    Decisions that are `standing` change only where the schedule gains what they ask for.
    Jobs are priced by `pricing`, where it is given, on a cluster: the result is the same.
    With `iterations` every stage makes that many steps and no clock is watched. Takes a problem that passed
    `Problem.check`.
    """
    began = time.monotonic()
    work_s = WORK_SHARE * seconds if work_s is None else work_s
    with ThreadPoolExecutor(workers) as pool:
        budget = SolveBudget(began + seconds, stop, pool, workers, seed, target_gap, iterations, pricing=pricing)
        state = _start(problem, warm, budget)
        reports: list[StageReport] = []
        stages = _plan(state, previous, warm is not None, cuts, work_s)
        if standing is not None:
            stages = _with_room_for(_NEAR_SHARE, stages)
            stages.append(("near", NearLastPlan(standing, previous), _NEAR_SHARE))
        for number, (name, stage, share) in enumerate(stages):
            last = isinstance(stage, NearLastPlan)
            if reports and not last and (stop() or state.gap <= max(target_gap, CLOSED)):
                continue
            at = time.monotonic()
            rest = sum(later for _, _, later in stages[number:])
            mine = budget.part(budget.left() * share / rest if share else budget.left(), share * work_s)
            state = stage.run(state, mine)
            done = mine.ledger
            cut = done.cut and (last or state.gap > max(target_gap, CLOSED))  # the last one works on closed gaps too
            reports.append(StageReport(name, time.monotonic() - at, state.value, state.bound, done.done, cut))
            log(_line(reports[-1], done.planned))
            if progress is not None:
                progress(_result(problem, state, budget, tuple(reports)))
        return _result(problem, state, budget, tuple(reports))


def _line(report: StageReport, planned: int) -> str:
    work = f"work={report.work}/{planned}{' cut=deadline' if report.cut else ''}"
    return f"stage={report.name} seconds={report.seconds:.2f} {work} value={report.value} bound={report.bound:.0f}"


def _start(problem: Problem, warm: PriceCertificate | None, budget: SolveBudget) -> SolverState:
    """Return the state in which every job waits, with the bound of the warm prices, or of prices of 0."""
    presolved = presolve(problem)
    waiting = Schedule.empty(problem.jobs)
    state = SolverState(presolved, waiting, int(problem.job_wait_value.sum()))
    if warm is not None and warm.price.shape == problem.capacity.shape and (warm.price >= 0).all():
        price = unit_prices(problem, warm).price / 2.0**warm.scale_bits
        state = replace(state, price=PriceStep(presolved, price, 0.0).price())  # alike halls may not have been alike
    at = evaluate(presolved, np.zeros(problem.capacity.shape) if state.price is None else state.price, budget)
    return replace(state, bound=at.bound * (1 + ROUNDING) + 1)


def _plan(
    state: SolverState, previous: Schedule | None, warm: bool, with_cuts: bool, work_s: float
) -> list[tuple[str, Stage, float]]:
    """Stages in order, each with its share of the work."""
    problem = state.presolved.problem
    exact = whole_cells(problem) <= CpSatExact().most_cells
    decodes = 0.6 * work_s / Costs.of(state.presolved).decode
    cuts: list[tuple[str, Stage, float]] = [("cuts", CountCuts(), 0.05)] if with_cuts else []
    first: list[tuple[str, Stage, float]] = [("repair", Repair(previous), 0.0)]
    if exact:
        first += [("prices", Prices(), 0.1), *cuts, ("greedy", PriceGreedy(), 0.05)]
        first += [("search", NeighbourhoodSearch(), 0.1)]
        return [*first, ("anneal", Annealing(), 0.25), ("exact", CpSatExact(), 0.45)]
    if decodes >= LEAST_DECODES and problem.jobs <= MOST_JOBS:
        more = 0.1 if len(problem.curves.meter_row) else 0.0  # prices of curves take more steps
        first += [("prices", Prices(), 0.13 + more), *cuts, ("greedy", PriceGreedy(), 0.02)]
        first += [("search", NeighbourhoodSearch(), 0.1)]
        return [
            *first,
            ("anneal", Annealing(), 0.6 - more),
            ("polish", NeighbourhoodSearch(hot=0.001, cold=0.0003), 0.1),
        ]
    share = 0.2 if warm else 0.25
    if problem.jobs > MOST_JOBS and share * work_s < FEW_STEPS * Costs.of(state.presolved).price_round:
        coarse: list[tuple[str, Stage, float]] = [] if warm else [("coarse_prices", CoarsePrices(), 0.15)]
        first += [*coarse, ("prices", Prices(least=FEW_STEPS), 0.35), ("greedy", PriceGreedy(), 0.08)]
        return [*first, ("search", NeighbourhoodSearch(), 0.4), ("windows", CpSatWindows(), 0.02)]
    first += [("prices", Prices(), share), ("greedy", PriceGreedy(), 0.12)]
    return [*first, ("search", NeighbourhoodSearch(), 0.6), ("windows", CpSatWindows(), 0.03)]


def _with_room_for(share: float, stages: list[tuple[str, Stage, float]]) -> list[tuple[str, Stage, float]]:
    """Return stages that leave a share of the work; those that make the bound keep theirs."""
    bound = sum(own for name, _, own in stages if name in _PROVING)
    part = (1 - share - bound) / (1 - bound)
    return [(name, stage, own if name in _PROVING else part * own) for name, stage, own in stages]


def _result(problem: Problem, state: SolverState, budget: SolveBudget, reports: tuple[StageReport, ...]) -> SolveResult:
    presolved = state.presolved if state.cuts is None else state.cuts.presolved
    if state.cuts is None:
        price = state.price if state.price is not None else np.zeros(problem.capacity.shape)
        certificate = certificate_of(problem, price)
    else:
        certificate = cut_certificate(state.cuts)
    every = np.vstack((certificate.price, *certificate.cut_price))
    at = evaluate(presolved, every / 2.0**certificate.scale_bits, budget)
    proved = math.floor(at.bound * (1 + 1e-9 * math.copysign(1, at.bound))) + 1
    bound = min(proved, math.floor(state.bound)) if math.isfinite(state.bound) else proved
    source = "cp-sat" if bound < proved * (1 - 1e-8) - 2 else "prices"
    bound = bound if source == "cp-sat" else proved
    return SolveResult(
        state.schedule, state.value, bound, gap(state.value, bound), certificate, proved, source, reports
    )
