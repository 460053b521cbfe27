"""Solves one project: bounds, then a genetic search and CP-SAT side by side until lower equals upper or time is up."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from powerhall.errors import PowerhallError
from powerhall_optimizer.rcpsp import bounds
from powerhall_optimizer.rcpsp.arrays import Arrays, arrays_of
from powerhall_optimizer.rcpsp.check import broken_rules
from powerhall_optimizer.rcpsp.evolve import Population
from powerhall_optimizer.rcpsp.exact import Exact
from powerhall_optimizer.rcpsp.instance import Instance, Schedule

__all__ = ["Result", "solve"]

_CHILDREN = 200
_ALONE_SHARE = 0.02
_BESIDE_SHARE = 0.5
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Result:
    """A checked schedule and a proved lower bound of one project; makespan and bound in the file's periods."""

    name: str
    schedule: Schedule
    makespan: int
    lower_bound: int
    seconds: float

    @property
    def proved(self) -> bool:
        """Whether the schedule is proved shortest."""
        return self.lower_bound >= self.makespan

    @property
    def gap(self) -> float:
        """Distance to the proved bound as a fraction of the bound."""
        return (self.makespan - self.lower_bound) / self.lower_bound if self.lower_bound else 0.0


class _Race:
    """What is known so far, shared by the threads that improve it.

    Invariants: `lower` only rises, `makespan` only falls, `lower <= makespan`.
    """

    def __init__(self, instance: Instance, lower: int, schedule: Schedule) -> None:
        self._durations = instance.durations
        self._lock = threading.Lock()
        self.finished = threading.Event()
        self.lower = lower
        self.best = schedule
        self.makespan = schedule.makespan(instance.durations)
        self.bound(lower)

    def bound(self, lower: int) -> None:
        """Take a proved lower bound; one above the best schedule means that nothing shorter exists."""
        with self._lock:
            self.lower = min(max(self.lower, lower), self.makespan)
            if self.lower == self.makespan:
                self.finished.set()

    def schedule(self, schedule: Schedule) -> None:
        """Take a schedule if it is shorter."""
        makespan = schedule.makespan(self._durations)
        with self._lock:
            if makespan < self.makespan:
                self.makespan, self.best = makespan, schedule
                if self.lower == self.makespan:
                    self.finished.set()


def solve(
    instance: Instance,
    seconds: float,
    *,
    workers: int = 2,
    seed: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Find a short schedule and a proved lower bound within `seconds`, using `workers` threads."""
    begin = clock()
    arrays = arrays_of(instance)
    lower = max(bounds.critical_path(arrays), bounds.resource_work(arrays))
    population = Population(arrays, seed)
    race = _Race(instance, lower, population.breed(1, lower))
    _run(race, population, _Work(instance, arrays, begin + seconds, workers, seed, clock))
    broken = broken_rules(instance, race.best)
    if broken:
        raise PowerhallError(f"{instance.name}: the schedule found is not valid: {broken[0]}")
    return Result(instance.name, race.best, race.makespan, race.lower, clock() - begin)


@dataclass(frozen=True, slots=True)
class _Work:
    """What every stage needs and none changes."""

    instance: Instance
    arrays: Arrays
    deadline: float
    workers: int
    seed: int
    clock: Callable[[], float]

    def left(self) -> float:
        return self.deadline - self.clock()


def _run(race: _Race, population: Population, work: _Work) -> None:
    """Breed alone for a moment, then beside the proof, then every worker on the proof."""
    _breed(race, population, work, work.clock() + work.left() * _ALONE_SHARE)
    until = work.clock() + work.left() * _BESIDE_SHARE
    with ThreadPoolExecutor(1) as pool:
        breeding = pool.submit(_breed, race, population, work, until)
        if work.workers > 1:
            _prove(race, work, until, work.workers - 1)
        breeding.result()
    _prove(race, work, work.deadline, work.workers)


def _breed(race: _Race, population: Population, work: _Work, until: float) -> None:
    while not race.finished.is_set() and work.clock() < until:
        race.schedule(population.breed(_CHILDREN, race.lower))


def _prove(race: _Race, work: _Work, until: float, workers: int) -> None:
    """Let CP-SAT work on the whole project until the race is finished or `until` has come."""
    if race.finished.is_set() or work.clock() >= until:
        return
    exact = Exact(work.instance, work.arrays, race.lower, race.makespan)
    done = threading.Event()

    def stop_when_finished() -> None:
        while not done.wait(_POLL_S):
            if race.finished.is_set():
                exact.stop()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(stop_when_finished)
        try:
            found = exact.solve(until - work.clock(), workers, work.seed, race)
        finally:
            done.set()
    if found.schedule is not None:
        race.schedule(found.schedule)
    race.bound(found.lower)
