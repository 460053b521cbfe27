"""Simulated annealing over list schedules: the search of problems small enough that many of them can be decoded.

Each thread has a chain of its own. All cool down together, and now and then every chain goes on from the best solution
that any of them has met, so the number of threads, not their speed, decides what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerhall_optimizer.problem.arrays import Ints, Schedule
from powerhall_optimizer.problem.meter import no_curves
from powerhall_optimizer.solve.kernels.kernel_arrays import Floats, ProblemArrays
from powerhall_optimizer.solve.kernels.list_schedule import AnnealSettings, Chain, anneal, decode
from powerhall_optimizer.solve.kernels.meter_steps import ROUNDINGS_W, meter_steps, most_it_w
from powerhall_optimizer.solve.presolve import PresolvedProblem, profile_prices
from powerhall_optimizer.solve.prices import evaluate
from powerhall_optimizer.solve.stage import SolveBudget, SolverState
from powerhall_optimizer.solve.work import Costs, Pace

__all__ = ["LEAST_DECODES", "MOST_JOBS", "Annealing"]

LEAST_DECODES = 4_000
"""With fewer decodes of each chain the neighbourhood search finds more."""
MOST_JOBS = 1_000
"""With more jobs a decode takes longer than its estimate, because the snapshots leave the cache of the CPU."""
_ROUND_S = 0.2
"""Reference seconds of a round, at most: the deadline is looked at between rounds."""
_STRIDE = 8
"""Jobs from one snapshot of the free amounts to the next."""


@dataclass(frozen=True, slots=True)
class Annealing:
    """The stage: at least `rounds` rounds of equal work; `joins` times the chains go on from the best.

    `hot` and `cold` are the first and the last temperature as shares of the mean value of a placed job.
    """

    hot: float = 0.05
    cold: float = 0.0005
    rounds: int = 60
    joins: int = 6

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Raise the value of the schedule; the bound stays as it is."""
        presolved, problem = state.presolved, state.presolved.problem
        if problem.options == 0:
            return state
        rounds = max(self.rounds, round(budget.work_s / _ROUND_S))
        decodes = budget.steps(Costs.of(presolved).decode, rounds, 1 << 40) // rounds
        if budget.iterations is not None:
            rounds, decodes = 1, budget.iterations
        ranked, highest = _rankings(state, budget)
        energy = profile_prices(presolved, np.zeros(problem.capacity.shape))
        arrays, capacity = _at_meter(presolved)
        steps = meter_steps(arrays.curves)
        chains = [_chain(state, ranked) for _ in range(budget.workers)]
        for chain in chains:
            decode(arrays, steps, chain, energy, capacity)
        seeds = np.random.default_rng(budget.seed).integers(0, 1 << 31, (rounds, budget.workers))
        mean = _mean_value(state)
        pace, done = Pace(budget, rounds), 0
        while (progress := pace.at(done)) < 1.0 and state.gap > budget.target_gap:
            heat = mean * self.hot * (self.cold / self.hot) ** progress
            settings = [AnnealSettings(seed, decodes, heat, _STRIDE) for seed in seeds[done].tolist()]

            def work(entry: tuple[Chain, AnnealSettings]) -> None:
                anneal(arrays, steps, entry[0], ranked, highest, energy, capacity, entry[1])

            list(budget.pool.map(work, zip(chains, settings, strict=True)))
            done += 1
            best = max(chains, key=lambda chain: float(chain.best_value[0]))
            state = state.better(Schedule(best.best_option.copy(), best.best_start.copy()), int(best.best_value[0]))
            if done % max(1, rounds // self.joins) == 0:
                for chain in chains:
                    if chain is not best:
                        _join(chain, best)
                        decode(arrays, steps, chain, energy, capacity)
        return state


def _at_meter(presolved: PresolvedProblem) -> tuple[ProblemArrays, Ints]:
    """Return arrays and capacities of list schedules.

    A limit at the meter of one pool is a capacity of its IT power. Others are read by steps, with what these may be too
    low taken off the capacity.
    """
    problem = presolved.problem
    curves, capacity = problem.curves, problem.capacity.copy()
    if len(curves.pool_row) == 1:
        capacity[curves.pool_row[0]] = most_it_w(curves, 0, capacity[curves.meter_row[0]])
        return presolved.arrays._replace(curves=no_curves(problem.resources, problem.slots)), capacity
    np.subtract.at(capacity, curves.meter_row, ROUNDINGS_W)
    return presolved.arrays, capacity


def _join(chain: Chain, best: Chain) -> None:
    """Let a chain go on from the best solution; it must be decoded: the state's schedule is no list schedule."""
    chain.order[:], chain.gene[:] = best.best_order, best.best_gene


def _mean_value(state: SolverState) -> float:
    """Mean value of a placed job, at least 1."""
    placed = max(1, int((state.schedule.option >= 0).sum()))
    waiting = int(state.presolved.problem.job_wait_value[state.schedule.option < 0].sum())
    return max(1.0, (state.value - waiting) / placed)


def _chain(state: SolverState, ranked: Ints) -> Chain:
    """Return a chain at the state's schedule: jobs that run first, the dearest to stop; the others by start."""
    problem, schedule = state.presolved.problem, state.schedule
    placed = schedule.option >= 0
    begins = np.where(placed, schedule.start, problem.slots)
    order = np.lexsort((begins, np.minimum(0, problem.job_wait_value))).astype(np.int64)
    first = ranked[np.minimum(problem.job_options[:-1], len(ranked) - 1)]
    gene = np.where(placed, schedule.option, np.where(np.diff(problem.job_options) > 0, first, -1)).astype(np.int64)
    value = np.array([float(state.value)])
    option, start = schedule.option, schedule.start
    now = (order, gene, option.copy(), start.copy(), value.copy())
    return Chain(*now, option.copy(), start.copy(), order.copy(), gene.copy(), value)


def _rankings(state: SolverState, budget: SolveBudget) -> tuple[Ints, Floats]:
    """Return each job's options by falling value less price, and what each job is worth at most."""
    presolved, problem = state.presolved, state.presolved.problem
    nothing = np.zeros(problem.capacity.shape)
    every = (np.arange(problem.options, dtype=np.int64), problem.job_options)
    at = evaluate(presolved, nothing if state.price is None else state.price, budget, every)
    job = np.repeat(np.arange(problem.jobs), np.diff(problem.job_options))
    ranked = np.lexsort((-at.column_gain, job)).astype(np.int64)
    return ranked, evaluate(presolved, nothing, budget, every).gain
