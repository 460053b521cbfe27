"""Compile the solver's kernels, or load them where a cache has them: once per process."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

__all__ = ["compile_solver"]


@cache
def compile_solver() -> None:
    """Run every stage that has kernels on a small generated problem, one step each.

    Takes some tens of seconds on a fresh installation, and about half a second with its cache. Child processes that
    are forked later have the kernels as well.
    """
    import numpy as np

    from powerhall_optimizer.problem.arrays import Schedule
    from powerhall_optimizer.problem.synthetic import generate
    from powerhall_optimizer.solve.annealing import Annealing
    from powerhall_optimizer.solve.neighbourhood_search import NeighbourhoodSearch
    from powerhall_optimizer.solve.presolve import presolve
    from powerhall_optimizer.solve.price_greedy import PriceGreedy
    from powerhall_optimizer.solve.prices import Prices
    from powerhall_optimizer.solve.repair import Repair
    from powerhall_optimizer.solve.stage import SolveBudget, SolverState, certificate_of

    problem = generate("open", 60, 24, 0)
    state = SolverState(presolve(problem), Schedule.empty(problem.jobs), int(problem.job_wait_value.sum()))
    with ThreadPoolExecutor(2) as pool:
        budget = SolveBudget(time.monotonic() + 600.0, lambda: False, pool, 2, 1, iterations=1)
        for stage in (Repair(), Prices(), PriceGreedy(tries=4), NeighbourhoodSearch(), Annealing()):
            state = stage.run(state, budget)
    certificate_of(problem, state.price if state.price is not None else np.zeros(problem.capacity.shape))
