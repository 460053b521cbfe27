"""The end of a solve near the last plan: no further from its decisions than the value asks for.

Searches bring changes and value together. One starts from the plan of the stages before, found without regard to the
last plan, with near decisions put back: it returns to the last plan where that costs less than `Standing.gain` each.
Another starts from the last plan, repaired and filled, and changes it where that gains as much; it is left out where
the last plan is far behind. Of what they find the plan is taken that keeps most among those that are worth as much as
the best one, up to what holding may cost.
Prices, and with them the bound, are those of the problem itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from powerhall_optimizer.problem.arrays import Ints, Problem, Schedule
from powerhall_optimizer.problem.standing import HeldProblem, Standing
from powerhall_optimizer.solve.annealing import LEAST_DECODES, MOST_JOBS, Annealing
from powerhall_optimizer.solve.neighbourhood_search import NeighbourhoodSearch
from powerhall_optimizer.solve.presolve import PresolvedProblem, presolve
from powerhall_optimizer.solve.price_greedy import value_of
from powerhall_optimizer.solve.repair import Repair
from powerhall_optimizer.solve.settle import settle
from powerhall_optimizer.solve.stage import SolveBudget, SolverState
from powerhall_optimizer.solve.work import Costs

__all__ = ["NearLastPlan"]

_LOW = 0.25
"""Part of the gain that changes must bring at first from the free plan, and at last from the last plan."""
_HOPELESS = 0.03
"""The last plan is not worked on where it is worth so much less than the free one, as a share of this."""
_SEARCH = NeighbourhoodSearch(hot=0.003, cold=0.0003)
_ANNEAL = Annealing(hot=0.006, cold=0.0003, rounds=20, joins=3)
_ANNEAL_SHARE = 0.7
"""Part of a search's work that is annealing, where the problem is small enough for it."""


@dataclass(frozen=True, slots=True)
class NearLastPlan:
    """The last stage: its schedule may be worth less than that of the state; the bound stays as it is."""

    standing: Standing
    others: Schedule | None
    """Decisions to start from, for jobs of which nothing stands."""

    def run(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Return the schedule nearest to the last plan that costs no more than the standing decisions may."""
        held = HeldProblem(state.presolved.problem, self.standing)
        if state.presolved.problem.options == 0 or not len(held.held):
            return state
        near = _Near(held, presolve(held.problem), state)
        free, last = near.with_firm(state, budget), near.kept(self.others, budget)
        hopeless = near.firm_worth(last) < near.firm_worth(free) - _HOPELESS * abs(free.value)
        found = self._from_free(near, free, budget, 1.0 if hopeless else 0.35)
        if near.firm_worth(state) > near.firm_worth(max(found, key=near.firm_worth)):
            found.append(state)
        if not hopeless:
            found += self._from_last(near, last, found, budget)
        least = self._least(near, found)
        return max((one for one in found if near.firm_worth(one) >= least), key=near.worth)

    def _from_free(self, near: _Near, free: SolverState, budget: SolveBudget, share: float) -> list[SolverState]:
        """Return what is found from the free plan by changes of little gain, and by those back of the whole gain."""
        found = near.searched(free, _LOW, _turn(budget, 0.7 * share, 0.7 * share))
        back = near.searched(found, 1.0, _turn(budget, 0.3 * share, 0.3 * share / (1 - 0.7 * share)))
        return [free, found, back]

    def _from_last(
        self, near: _Near, last: SolverState, others: list[SolverState], budget: SolveBudget
    ) -> list[SolverState]:
        """Return what is found from the last plan by changes of the whole gain, then of less where it must be."""
        found = near.searched(last, 1.0, _turn(budget, 0.35, 0.54))
        if near.firm_worth(found) >= self._least(near, [*others, found]):
            return [found]
        return [found, near.searched(found, _LOW, _turn(budget, 0.3, 1.0))]

    def _least(self, near: _Near, found: list[SolverState]) -> int:
        """Return what a schedule must be worth beside what the best one is, firm decisions counted."""
        top = max(map(near.firm_worth, found))
        return top - math.floor(self.standing.cost * abs(max(one.value for one in found)))


@dataclass(frozen=True, slots=True)
class _Near:
    """The held problem, and the state whose prices and bound every schedule keeps."""

    held: HeldProblem
    presolved: PresolvedProblem
    state: SolverState

    def worth(self, found: SolverState) -> int:
        """Return the value of a schedule in the held problem."""
        own = self.held.own(found.schedule)
        return value_of(self.presolved, own.option, own.start)

    def firm_worth(self, found: SolverState) -> int:
        """Return the value of a schedule, and what keeping firm decisions is worth in it."""
        standing = self.held.standing
        return found.value + int(standing.worth[standing.kept(found.schedule) & standing.firm].sum())

    def searched(self, begin: SolverState, part: float, budget: SolveBudget) -> SolverState:
        """Return what a search finds where each change gains `part` of `gain`; what need not have changed is back."""
        standing = replace(self.held.standing, gain=max(1, round(part * self.held.standing.gain)))
        held = HeldProblem(self.held.before, standing)
        presolved = self._presolved(held.problem)
        own = held.own(begin.schedule)
        inner = SolverState(presolved, own, value_of(presolved, own.option, own.start), self.state.price, math.inf)
        return self._of(settle(held, _improved(inner, budget).schedule))

    def with_firm(self, state: SolverState, budget: SolveBudget) -> SolverState:
        """Return the state with the firm decisions in it; what they leave no room for starts elsewhere."""
        standing = self.held.standing
        firm = np.flatnonzero(standing.firm & ~standing.kept(state.schedule))
        if not len(firm):
            return state
        wanted = Schedule(state.schedule.option.copy(), state.schedule.start.copy())
        wanted.option[firm], wanted.start[firm] = standing.option[firm], standing.start[firm]
        return self._fitted(wanted, budget)

    def kept(self, others: Schedule | None, budget: SolveBudget) -> SolverState:
        """Return the last plan as far as it fits, the firm decisions first, filled with what waits."""
        wanted = self.held.standing.schedule
        if others is not None:
            other = wanted.option < 0
            wanted.option[other], wanted.start[other] = others.option[other], others.start[other]
        return self._fitted(wanted, budget)

    def _fitted(self, wanted: Schedule, budget: SolveBudget) -> SolverState:
        """Return decisions as far as they fit, filled; running jobs come first, or make room for firm decisions."""
        own, problem = self.held.own(wanted), self.held.problem
        nothing = Schedule.empty(problem.jobs)
        empty = SolverState(self.presolved, nothing, int(problem.job_wait_value.sum()), self.state.price)
        found = Repair(own, self._order(own, 2)).run(empty, budget)
        standing = self.held.standing
        if (standing.firm & ~standing.kept(self.held.whole(found.schedule))).any():
            other = Repair(own, self._order(own, 0)).run(empty, budget)
            found = max(found, other, key=_value)
        return self._of(self.held.whole(found.schedule))

    def _of(self, schedule: Schedule) -> SolverState:
        return replace(
            self.state, schedule=schedule, value=value_of(self.state.presolved, schedule.option, schedule.start)
        )

    def _order(self, own: Schedule, firm_rank: int) -> Ints:
        """Return the jobs in the order in which they keep decisions: running jobs have rank 1, what waits rank 3.

        Within a rank those come first that lose most.
        """
        problem = self.held.problem
        pairs = zip(own.option.tolist(), own.start.tolist(), strict=True)
        worth = [problem.value(job, option, start) for job, (option, start) in enumerate(pairs)]
        rank = np.where(problem.job_wait_value < 0, 1, 3)
        rank[self.held.standing.firm] = firm_rank
        order: Ints = np.lexsort((problem.job_wait_value - np.array(worth, np.int64), rank)).astype(np.int64)
        return order

    def _presolved(self, problem: Problem) -> PresolvedProblem:
        """Return the presolved problem with another gain: nothing but the worth of the kept decisions differs."""
        worth = np.stack((problem.option_rate, problem.option_bonus), axis=1).astype(float)
        return replace(self.presolved, problem=problem, arrays=self.presolved.arrays._replace(option_value=worth))


def _value(state: SolverState) -> int:
    return state.value


def _improved(state: SolverState, budget: SolveBudget) -> SolverState:
    """Return a state improved by a cold search, after annealing where enough lists of jobs can be decoded."""
    decodes = _ANNEAL_SHARE * budget.work_s / Costs.of(state.presolved).decode
    if state.presolved.problem.jobs <= MOST_JOBS and 4 * decodes >= LEAST_DECODES:
        state = _ANNEAL.run(state, _turn(budget, _ANNEAL_SHARE, _ANNEAL_SHARE))
        budget = _turn(budget, 1 - _ANNEAL_SHARE, 1.0)
    return _SEARCH.run(state, budget)


def _turn(budget: SolveBudget, share: float, of_left: float) -> SolveBudget:
    """Return a share of the budget's work with so much of the time that is left; a target gap does not end it."""
    part = budget.part(budget.left() * of_left, share * budget.work_s)
    return replace(part, target_gap=0.0, ledger=budget.ledger)
