"""Annealing: every round of a chain begins at what its order and options decode to, also after chains have joined."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.problem.schedule_check import check_schedule
from powerhall_optimizer.problem.synthetic import generate
from powerhall_optimizer.solve import annealing
from powerhall_optimizer.solve.annealing import Annealing
from powerhall_optimizer.solve.pipeline import solve
from powerhall_optimizer.solve.presolve import presolve
from powerhall_optimizer.solve.stage import SolveBudget, SolverState


def test_chains_that_join_at_a_schedule_that_no_order_gives_count_what_they_book(monkeypatch):
    """The first schedule lets jobs start later than they might; it counts as the best, so the chains join at it."""
    problem = generate("pinned", 40, 48, 1)
    start = solve(problem, iterations=2).schedule
    for job in np.flatnonzero((start.option >= 0) & (start.start < problem.option_latest[start.option])).tolist():
        later = Schedule(start.option.copy(), start.start.copy())
        later.start[job] += 1
        start = start if next(check_schedule(problem, later), None) else later
    rounds: list[bool] = []

    def checked(arrays, steps, chain, ranked, highest, energy, capacity, settings):
        again = chain._replace(**{name: getattr(chain, name).copy() for name in chain._fields})
        annealing.decode(arrays, steps, again, energy, capacity)
        same = (again.option == chain.option).all() and (again.start == chain.start).all()
        rounds.append(bool(same and again.value[0] == chain.value[0]))

    monkeypatch.setattr(annealing, "anneal", checked)
    with ThreadPoolExecutor(2) as pool:
        budget = SolveBudget(time.monotonic() + 600, lambda: False, pool, 2, 1, work_s=0.02)
        best = 2 * abs(start.value(problem))
        Annealing().run(SolverState(presolve(problem), start, best), budget)
    assert len(rounds) >= 60
    assert all(rounds)
