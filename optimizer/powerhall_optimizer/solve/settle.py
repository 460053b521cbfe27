"""The end of a search near the last plan: what need not have changed goes back, and what can start at once does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerhall_optimizer.problem.arrays import Ints, Schedule
from powerhall_optimizer.problem.standing import HeldProblem
from powerhall_optimizer.problem.usage import add_usage, over_limit, usage_of

__all__ = ["settle"]

_TURNS = 3
_MOST_EARLIER = 2_000
"""Jobs for which an earlier start is looked for, at most."""


def settle(held: HeldProblem, own: Schedule) -> Schedule:
    """Return a schedule of the held problem with fewer changes, and with the near starts that cost nobody anything.

    What is returned is in the numbers of the problem itself.
    """
    settling = _Settling(held, own, usage_of(held.problem, own))
    for _ in range(_TURNS):
        if not sum(settling.put_back(number) for number in range(len(held.held))):
            break
    settling.start_earlier()
    return held.whole(settling.schedule)


@dataclass(frozen=True, slots=True)
class _Settling:
    """A schedule of the held problem, changed in place, and its usage."""

    held: HeldProblem
    schedule: Schedule
    usage: Ints

    def put_back(self, number: int) -> bool:
        """Put one job back and return True, where its decision fits and is worth no less in the held problem."""
        problem, job = self.held.problem, int(self.held.held[number])
        keep, start = int(self.held.own_options[number]), int(self.held.standing.start[job])
        before, at = int(self.schedule.option[job]), int(self.schedule.start[job])
        if before == keep or problem.value(job, keep, start) < problem.value(job, before, at):
            return False
        self._take(before, at, -1)
        fits = not over_limit(problem, self.usage, keep)[slice(*self._span(keep, start))].any()
        option, begin = (keep, start) if fits else (before, at)
        self._take(option, begin, 1)
        self.schedule.option[job], self.schedule.start[job] = option, begin
        return fits

    def start_earlier(self) -> None:
        """Start later jobs near where place and mode of their decision are free until they end, in their order.

        An earlier start moves nobody. Without it, what ends early would leave GPUs idle until the planned start.
        """
        standing = self.held.standing
        kept = self.held.held[self.schedule.option[self.held.held] == self.held.own_options]
        later = kept[standing.start[kept] >= standing.near]
        for job in later[np.argsort(standing.start[later], kind="stable")].tolist()[:_MOST_EARLIER]:
            keep, at = int(self.schedule.option[job]), int(self.schedule.start[job])
            option = int(standing.option[job] + self.held.added[job])
            self._take(keep, at, -1)
            start = self._first_near(job, option, at)
            if start is None:
                self._take(keep, at, 1)
            else:
                self._take(option, start, 1)
                self.schedule.option[job], self.schedule.start[job] = option, start

    def _first_near(self, job: int, option: int, at: int) -> int | None:
        """Return the first near start that fits and is worth more than the planned one without what a change costs."""
        problem, near = self.held.before, self.held.standing.near
        plain = int(self.held.standing.option[job])
        first = int(problem.option_earliest[plain])
        values = problem.values(job, plain)
        over = over_limit(self.held.problem, self.usage, option)
        for start in range(first, min(near, int(problem.option_latest[plain]) + 1)):
            better = values[start - first] > values[at - first]
            if better and not over[slice(*self._span(option, start))].any():
                return start
        return None

    def _take(self, option: int, start: int, sign: int) -> None:
        if option >= 0:
            add_usage(self.held.problem, self.usage, option, self._span(option, start), sign)

    def _span(self, option: int, start: int) -> tuple[int, int]:
        return start, min(self.held.problem.slots, start + int(self.held.problem.option_duration[option]))
