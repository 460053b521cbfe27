"""Alternate storage and jobs: capacity prices determine the dispatch, and the dispatch changes the capacities.

First prices and dispatch are found together (`descend`), and a linear program makes the dispatch exact. Then the whole
solver plans the jobs on the resulting capacities. The certificate takes the prices of the lower bound, before or after,
with the dual solution of the storage program at these prices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from powerhall.runtime.errors import PowerhallError
from powerhall_optimizer.cluster import connected
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.problem.arrays import Ints, PriceCertificate, Problem, Schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem
from powerhall_optimizer.problem.standing import Standing
from powerhall_optimizer.solve import pipeline
from powerhall_optimizer.solve.coarse_grid import LEVEL_SHARE, levels_of, solve_on_grid
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.prices import evaluate
from powerhall_optimizer.solve.shards import ClusterPricing
from powerhall_optimizer.solve.stage import SolveBudget, certificate_of
from powerhall_optimizer.storage.best_response import added_w
from powerhall_optimizer.storage.descend import descend
from powerhall_optimizer.storage.model import Dispatch, StorageModel, with_dispatch
from powerhall_optimizer.verify.storage_terms import STORED_VALUE_SCALE

if TYPE_CHECKING:
    from powerhall_optimizer.storage.program import Program, Solution

__all__ = [
    "SolveRequest",
    "SolvedSchedule",
    "covering_dispatch",
    "settled_dispatch",
    "solve_with_storage",
    "solve_without_storage",
    "without_storage",
]

Floats = npt.NDArray[np.float64]
_PRICE_SHARE, _MOST_SHARE = 0.35, 0.6
"""Part of the time that goes into prices and dispatch before the jobs are planned, and at most."""
_PROGRAMS_LEFT = 3
"""Linear programs that follow the solver: two for the certificate, one to settle the dispatch."""


@dataclass(frozen=True, slots=True)
class SolveRequest:
    """Inputs of one solve: time, settings, untrusted starting points, and the request to stop."""

    seconds: float
    work_s: float
    """Counted work in reference seconds (see `solve.work`); `seconds` is the deadline."""
    settings: RoundSettings
    warm: PriceCertificate | None
    previous: Schedule | None
    standing: Standing | None
    """Decisions of the last plan that change only for a gain."""
    stop: Callable[[], bool]
    log: Callable[[str], None]
    progress: Callable[[pipeline.SolveResult], None] | None = None
    """Called with what the solver has after each stage."""
    cuts: bool = True
    """The certificate may price cuts: not where storage adds to capacities."""


@dataclass(frozen=True, slots=True)
class SolvedSchedule:
    """A schedule, its storage dispatch, and the certificate: prices, and the value of a J per storage unit and slot."""

    schedule: Schedule
    dispatch: Dispatch
    certificate: PriceCertificate
    stored_value: dict[str, tuple[int, ...]]
    work: dict[str, int] = field(default_factory=dict)
    cut_short: tuple[str, ...] = ()


def _missing(problem: Problem, model: StorageModel, usage: Ints, roundings: int = 2) -> Ints:
    """Return the power that storage must add to every capacity for this usage, rounding of dispatches included."""
    result: Ints = usage - problem.capacity + roundings * model.rounding_w
    return np.where(usage > 0, result, -problem.capacity)


def covering_dispatch(problem: Problem, model: StorageModel, usage: Ints, solver: str) -> Dispatch:
    """Return the cheapest dispatch that covers a usage, as far as storage can."""
    from powerhall_optimizer.storage.program import Program

    return model.in_whole_watts(Program(model, solver).solve(None, _missing(problem, model, usage)).power_w)


def settled_dispatch(problem: Problem, program: Program, usage: Ints) -> Dispatch:
    """Return the cheapest dispatch for a final usage; one that does not cover it after rounding is refused."""
    model = program.model
    found = model.in_whole_watts(program.solve(None, _missing(problem, model, usage, 1)).power_w)
    shortages = usage - problem.capacity - model.added(found, problem.resources)
    if shortages.max(initial=0) > 0 or not model.meets_end_content(found):
        raise PowerhallError(f"the dispatch lacks {shortages.max(initial=0)} W, or what must be left at the end")
    return found


def solve_with_storage(
    built: BuiltProblem, model: StorageModel, running_usage: Ints, start: Dispatch, request: SolveRequest
) -> SolvedSchedule:
    """Return schedule and dispatch; the dispatch always covers `running_usage`, that of the running jobs."""
    from powerhall_optimizer.storage.program import Program  # its solver takes half a second to import

    settings = request.settings
    began = time.monotonic()
    problem = built.problem
    price = None if request.warm is None else request.warm.price / 2.0**request.warm.scale_bits
    presolved = presolve(problem)
    with ThreadPoolExecutor(settings.workers) as pool:
        deadline_s = began + _MOST_SHARE * request.seconds
        budget = SolveBudget(deadline_s, request.stop, pool, settings.workers, settings.seed)
        budget = replace(budget, work_s=_PRICE_SHARE * request.work_s)
        found = descend(presolved, model, price, budget)
        program = Program(model, settings.lp_solver)
        at = time.monotonic()
        dispatch = _feasible_dispatch(program, problem, running_usage, found.power_w, start)
        program_s = time.monotonic() - at
        request.log(f"stage=storage rounds={found.rounds} cost={float(model.cost(dispatch)):.0f}")
        opened = with_dispatch(built, model, dispatch).problem
        left_s = max(0.1, request.seconds - (time.monotonic() - began) - _PROGRAMS_LEFT * program_s)
        warm = certificate_of(opened, found.price)
        work_s = (1.0 - _PRICE_SHARE) * request.work_s
        result = _solve(opened, replace(request, seconds=left_s, work_s=work_s, warm=warm, progress=None, cuts=False))
        added = model.added(dispatch, problem.resources).astype(float)
        bounds: list[tuple[float, int, PriceCertificate, Solution]] = []
        for prices in (result.certificate, warm):
            now = prices.price / 2.0**prices.scale_bits
            answer = program.solve(now)
            bounds.append(
                (evaluate(presolved, now, budget, None, added).bound + answer.objective, len(bounds), prices, answer)
            )
    _, _, prices, answer = min(bounds)
    cut = ("storage",) if budget.ledger.cut else ()
    work = {"storage": found.rounds, **_work(result)}
    stored = _stored_value(model, prices, answer)
    return SolvedSchedule(result.schedule, dispatch, prices, stored, work, (*cut, *result.cut))


def _feasible_dispatch(
    program: Program, problem: Problem, running_usage: Ints, power_w: list[Floats], start: Dispatch
) -> Dispatch:
    """Return the dispatch `power_w` in whole W where it covers the running jobs; else `start`."""
    model = program.model
    need = _missing(problem, model, running_usage)
    total = sum((added_w(s, w, problem.resources) for s, w in zip(model.units, power_w, strict=True)), 0.0)
    need = np.maximum(need, np.floor(total).astype(np.int64))
    found = model.in_whole_watts(program.solve(None, need).power_w)
    return found if model.meets_end_content(found) else start


def solve_without_storage(problem: Problem, request: SolveRequest) -> SolvedSchedule:
    """Return the schedule of a site without storage."""
    return without_storage(_solve(problem, request))


def without_storage(result: pipeline.SolveResult) -> SolvedSchedule:
    """Return what the solver found as the schedule of a site without storage."""
    return SolvedSchedule(result.schedule, (), result.certificate, {}, _work(result), result.cut)


def _work(result: pipeline.SolveResult) -> dict[str, int]:
    """Return the steps of each stage that counts any."""
    return {stage.name: stage.work for stage in result.stages if stage.work}


def _solve(problem: Problem, request: SolveRequest) -> pipeline.SolveResult:
    """Solve level by level where the settings have a coarse grid for late starts."""
    settings = request.settings
    levels = levels_of(problem.slots, problem.slot_s, settings.coarse)

    def one(
        part: Problem, *, seconds: float, warm: PriceCertificate | None, previous: Schedule | None
    ) -> pipeline.SolveResult:
        share = 1.0 - LEVEL_SHARE * len(levels) if part is problem else LEVEL_SHARE
        return pipeline.solve(
            part,
            seconds=seconds,
            target_gap=settings.target_gap,
            seed=settings.seed,
            work_s=share * request.work_s,
            progress=request.progress if part is problem else None,
            workers=settings.workers,
            warm=warm,
            previous=previous,
            standing=request.standing if part is problem else None,
            stop=request.stop,
            cuts=request.cuts and part is problem,
            log=lambda line: request.log(f"slots={part.slots} {line}"),
            pricing=pricing,
        )

    with _pricing(settings.scheduler, request) as pricing:
        return solve_on_grid(
            problem,
            levels,
            one,
            seconds=request.seconds,
            warm=request.warm,
            previous=request.previous,
            stop=request.stop,
        )


@contextmanager
def _pricing(scheduler: str, request: SolveRequest) -> Iterator[ClusterPricing | None]:
    """Connect to the cluster of the settings; one that does not answer in time is done without."""
    with ExitStack() as stack:
        pricing = None
        if scheduler:
            try:
                cluster = stack.enter_context(
                    connected(scheduler, max(5.0, request.seconds / 4), max(5.0, request.seconds / 20))
                )
                pricing = ClusterPricing(cluster)
            except PowerhallError as error:
                request.log(f"cluster=unreachable reason={error}")
        yield pricing
        if pricing is not None:
            lost = f" lost={pricing.lost}" if pricing.lost else ""
            request.log(f"cluster={scheduler} priced={pricing.priced}{lost}")


def _stored_value(model: StorageModel, prices: PriceCertificate, answer: Solution) -> dict[str, tuple[int, ...]]:
    """Return the dual solution of the storage program at the final prices, as the certificate has it."""
    scale = float(1 << prices.scale_bits) * STORED_VALUE_SCALE
    return {
        store.storage.name: tuple(math.floor(value * scale + 0.5) for value in row.tolist())
        for store, row in zip(model.units, answer.stored_value, strict=True)
    }
