"""Lagrangian prices: one per resource group and slot, by a subgradient method with momentum.

With the capacities priced the problem falls apart into jobs: each takes its best option and start. The bound

    L(lambda) = sum(lambda * capacity) + sum over jobs of the best (value - priced usage)

is convex in lambda; capacity minus usage is a subgradient, and `price_step` moves along it. Between full evaluations
only the columns near their job's best are priced, which changes the direction a little and the bound not at all: a
bound is taken from full evaluations only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.solve.kernels.kernel_arrays import Columns, PricedDecisions
from powerhall_optimizer.solve.kernels.meter_price import price_meters
from powerhall_optimizer.solve.kernels.pricing import price_jobs
from powerhall_optimizer.solve.presolve import PresolvedProblem, profile_prices
from powerhall_optimizer.solve.price_step import PriceStep
from powerhall_optimizer.solve.stage import SolveBudget, SolverState
from powerhall_optimizer.solve.work import Costs, Pace

Floats = npt.NDArray[np.float64]
_STEPS = 24  # steps at most in which a price at a meter is sought
_PROMISED = 120
"""Steps that no deadline cuts short within the stage's own seconds: without prices a plan proves next to nothing."""
ROUNDING = 1e-9  # relative margin for float64 sums; the published bound is recomputed exactly


@dataclass(frozen=True, slots=True)
class Evaluation:
    """L(lambda) and the jobs' choices at these prices."""

    bound: float
    price: Floats  # [R, T] with the best prices at meters for those of the pools' IT power
    usage: Floats  # [R, T]
    free: Floats  # [R, T] capacity less usage, of pools that a meter counts the best IT power less usage: a subgradient
    gain: Floats  # [J] value less price of the best decision
    choice: Ints  # [J] option or -1
    start: Ints  # [J]
    column_gain: Floats  # [C]


def evaluate(
    presolved: PresolvedProblem,
    price: Floats,
    budget: SolveBudget,
    columns: tuple[Ints, Ints] | None = None,
    added: Floats | None = None,
) -> Evaluation:
    """Price all jobs in `budget.workers` threads; with `columns` (options, pointers per job) only over these.

    `added` [R, T] is capacity that storage may add: prices at meters are chosen for it, the bound is without it.
    """
    problem = presolved.problem
    options, pointers = columns if columns is not None else (presolved.column_option, presolved.job_columns)
    prefix = profile_prices(presolved, price)
    gain, choice, start, change, column_gain = _priced(presolved, Columns(pointers, options), prefix, budget)
    usage = np.cumsum(change[:, :-1], axis=1)
    capacity = problem.capacity.astype(float)
    price, cost, at_meter = _meters(presolved, price, capacity if added is None else capacity + added, budget)
    free = capacity - usage
    curves = problem.curves
    free[curves.pool_row] = at_meter - usage[curves.pool_row]
    free[curves.meter_row] = 0.0
    plain = np.ones(problem.resources, bool)
    plain[curves.pool_row] = plain[curves.meter_row] = False
    bound = float((price[plain] * capacity[plain]).sum() + gain.sum()) + cost
    if added is not None:
        meters = np.unique(curves.meter_row)
        bound -= float((price[meters] * added[meters]).sum())
    return Evaluation(bound, price, usage, free, gain, choice, start, column_gain)


def _priced(presolved: PresolvedProblem, columns: Columns, prefix: Floats, budget: SolveBudget) -> PricedDecisions:
    """Price all jobs over these columns, on the budget's cluster or in threads here: the same to the bit."""
    found = None if budget.pricing is None else budget.pricing.price(presolved, columns, prefix)
    if found is not None:
        return found
    problem, workers = presolved.problem, budget.workers
    change = np.zeros((workers, problem.resources, problem.slots + 1))
    gain, column_gain = np.zeros(problem.jobs), np.zeros(len(columns.option))
    choice, start = np.zeros(problem.jobs, np.int64), np.zeros(problem.jobs, np.int64)
    edges = np.searchsorted(columns.pointer, np.linspace(0, len(columns.option), workers + 1))
    edges[0], edges[-1] = 0, problem.jobs

    def part(worker: int) -> None:
        result = PricedDecisions(gain, choice, start, change[worker], column_gain)
        price_jobs(presolved.arrays, edges[worker], edges[worker + 1], columns, prefix, result)

    list(budget.pool.map(part, range(workers)))
    return PricedDecisions(gain, choice, start, change.sum(axis=0), column_gain)


def _meters(
    presolved: PresolvedProblem, price: Floats, capacity: Floats, budget: SolveBudget
) -> tuple[Floats, float, Floats]:
    """Return prices with those at meters, what jobs pay there at most, and the best IT power of the pools [K, T]."""
    problem = presolved.problem
    at_meter = np.zeros((len(problem.curves.pool_row), problem.slots))
    price = price.copy()
    edges = np.linspace(0, problem.slots, budget.workers + 1).astype(int).tolist()

    def part(worker: int) -> float:
        span = edges[worker], edges[worker + 1]
        return price_meters(problem.curves, presolved.meter_grid, span, price, capacity, at_meter, _STEPS)

    return price, sum(budget.pool.map(part, range(budget.workers))), at_meter


@dataclass(frozen=True, slots=True)
class Prices:
    """The stage: `rounds` iterations at most, fewer where the budget limits them; warm when the state has prices.

    `least` iterations are planned where the counted work allows fewer; the deadline may cut them short.
    """

    rounds: int = 4000
    least: int = 30
    step: float = 0.2
    warm_step: float = 0.02
    full_every: int = 8

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Lower the bound; the schedule stays as it is."""
        presolved = state.presolved
        if presolved.problem.resources == 0 or presolved.problem.jobs == 0:
            zero = np.zeros(presolved.problem.capacity.shape)
            at = evaluate(presolved, zero, budget)
            return state.tighter(at.price, at.bound)
        return _descend(self, state, budget)


def _descend(stage: Prices, state: SolverState, budget: SolveBudget) -> SolverState:
    presolved = state.presolved
    steps = PriceStep(presolved, state.price, stage.step if state.price is None else stage.warm_step)
    pace = Pace(budget, budget.iterations or budget.steps(Costs.of(presolved).price_round, stage.least, stage.rounds))
    near: tuple[Ints, Ints] | None = None
    progress = 0.0
    meters = presolved.problem.curves.meter_row
    at_meter = None
    while progress < 1.0:
        price = steps.price()
        if at_meter is not None:
            price[meters] = at_meter
        full = steps.done % stage.full_every == 0 or progress > 0.9
        at = evaluate(presolved, price, budget, None if full else near)
        at_meter = at.price[meters]
        if full:
            state = state.tighter(at.price, at.bound * (1 + ROUNDING) + 1)
            near = _near_columns(presolved, at, 0.01 + 0.1 * (1 - progress) ** 2)
        if state.gap <= budget.target_gap:
            break
        steps.move(at.free, progress)
        progress = pace.at(steps.done)
        promised = min(_PROMISED, pace.total)
        if steps.done < promised and not budget.stop() and budget.clock() - pace.began < budget.work_s:
            progress = min(progress, steps.done / promised)  # only a deadline lies ahead of this
    return state


def _near_columns(presolved: PresolvedProblem, at: Evaluation, width: float) -> tuple[Ints, Ints]:
    """Columns whose gain is at most `width` of the job's unpriced value below the job's best."""
    counts = np.diff(presolved.job_columns)
    job = np.repeat(np.arange(len(counts)), counts)
    option = presolved.column_option
    length = np.minimum(presolved.problem.option_duration[option], presolved.problem.slots)
    worth = np.abs(presolved.arrays.option_value[option, 0] * length) + np.abs(presolved.arrays.option_value[option, 1])
    keep = at.column_gain >= at.gain[job] - width * worth
    pointers = np.concatenate(([0], np.cumsum(np.bincount(job[keep], minlength=len(counts)))))
    return option[keep], pointers.astype(np.int64)
