"""Portfolio solver for one project: bounds, then a genetic search and CP-SAT until the bounds meet or time is up."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from powerhall.runtime.errors import PowerhallError
from powerhall_optimizer.rcpsp import lower_bounds
from powerhall_optimizer.rcpsp.feasibility import broken_rules
from powerhall_optimizer.rcpsp.genetic_search import Population
from powerhall_optimizer.rcpsp.instance import Instance, ProjectSchedule, reversed_in_time
from powerhall_optimizer.rcpsp.makespan_model import MakespanModel, ProgressListener
from powerhall_optimizer.rcpsp.project_arrays import ProjectArrays, arrays_of, mirror_of

__all__ = ["ProjectResult", "solve"]

_CHILDREN = 200
_SEED_STEP = 7919
_CAPACITIES = (400, 1200)
"""Sizes of the populations, by worker: the small one converges sooner, the large one goes deeper on 120 tasks."""
_BREED_FIRST = 0.12
"""Share of the time that breeding has at most before the proof begins."""
_BREED_PATIENCE = 0.03
"""Share of the time without a shorter schedule after which this first breeding ends."""
_PROVE_TRIAL = 0.4
"""Share of the time after which a proof that is still far is given up."""
_NEAR_PERIODS = 2
_NEAR_SHARE = 0.06
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ProjectResult:
    """A checked schedule and a proved lower bound of one project; makespan and bound in the file's periods."""

    name: str
    schedule: ProjectSchedule
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
    """The best schedule and bound so far, shared by the threads that improve them.

    Invariants: `lower` only rises, `makespan` only falls, `lower <= makespan`.
    """

    def __init__(self, instance: Instance, lower: int, schedule: ProjectSchedule) -> None:
        self.durations = instance.durations
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

    def schedule(self, schedule: ProjectSchedule) -> None:
        """Take a schedule if it is shorter."""
        makespan = schedule.makespan(self.durations)
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
) -> ProjectResult:
    """Find a short schedule and a proved lower bound within `seconds`, using `workers` threads.

    The first call after an installation also compiles the search, which takes part of its time.
    """
    begin = clock()
    arrays = arrays_of(instance)
    lower = max(lower_bounds.critical_path(arrays), lower_bounds.resource_work(arrays))
    populations = [
        Population(arrays, seed + _SEED_STEP * worker, _CAPACITIES[worker % len(_CAPACITIES)])
        for worker in range(workers)
    ]
    race = _Race(instance, lower, populations[0].breed(1, lower))
    _run(race, populations, _Work(instance, arrays, begin, begin + seconds, workers, seed, clock))
    broken = broken_rules(instance, race.best)
    if broken:
        raise PowerhallError(f"{instance.name}: the schedule found is not valid: {broken[0]}")
    if race.makespan < race.lower:
        raise PowerhallError(
            f"{instance.name}: a schedule of {race.makespan} was found though CP-SAT refuted all below {race.lower}"
        )
    return ProjectResult(instance.name, race.best, race.makespan, race.lower, clock() - begin)


@dataclass(frozen=True, slots=True)
class _Work:
    """Constant inputs of every stage; `begin` and `deadline` are readings of `clock`."""

    instance: Instance
    arrays: ProjectArrays
    begin: float
    deadline: float
    workers: int
    seed: int
    clock: Callable[[], float]

    def at(self, share: float) -> float:
        """Return the clock reading at which this share of the time is used up."""
        return self.begin + share * (self.deadline - self.begin)


def _run(race: _Race, populations: list[Population], work: _Work) -> None:
    """Breed, then prove; where the proof is far when its trial is over, spend the rest on breeding."""
    whole = work.deadline - work.begin
    _breed_all(race, populations, work, work.at(_BREED_FIRST), _BREED_PATIENCE * whole)
    _prove(race, work)
    _breed_all(race, populations, work, work.deadline, whole)


def _breed_all(race: _Race, populations: list[Population], work: _Work, until: float, patience: float) -> None:
    """Let every population breed in its own thread."""
    with ThreadPoolExecutor(len(populations)) as pool:
        running = [pool.submit(_breed, race, population, work, until, patience) for population in populations]
    for thread in running:
        thread.result()


def _breed(race: _Race, population: Population, work: _Work, until: float, patience: float) -> None:
    """Breed until the race is finished, `until` has come or no shorter schedule was found for `patience` seconds."""
    shortest, found = race.makespan, work.clock()
    while not race.finished.is_set() and work.clock() < min(until, found + patience):
        race.schedule(population.breed(_CHILDREN, race.lower))
        if race.makespan < shortest:
            shortest, found = race.makespan, work.clock()


def _prove(race: _Race, work: _Work) -> None:
    """Let CP-SAT work from below and from above until the race is finished, time is up or the proof looks too far.

    One prover raises the bound on the mirror of the project; the other decides, on the project itself, whether the
    best schedule can be shortened by one period. A single worker climbs on the project.
    """
    mirrored = _Prover(race, mirror_of(work.arrays), _Mirrored(race), climbs=True)
    forward = _Prover(race, work.arrays, race, climbs=work.workers == 1)
    provers = [forward, mirrored][: work.workers]
    done = threading.Event()

    def watch() -> None:
        trial_over = work.at(_PROVE_TRIAL)
        while not done.wait(_POLL_S):
            far = race.makespan - race.lower > max(_NEAR_PERIODS, _NEAR_SHARE * race.makespan)
            for prover in provers:
                prover.look(give_up=far and work.clock() >= trial_over)

    with ThreadPoolExecutor(1 + len(provers)) as pool:
        pool.submit(watch)
        share, rest = divmod(work.workers, len(provers))
        running = [pool.submit(prover.run, work, share + (at < rest)) for at, prover in enumerate(provers)]
        wait(running)
        done.set()
    for prover_run in running:
        prover_run.result()


class _Prover:
    """Solves one side of the project again and again, each time with the bounds known by then."""

    def __init__(self, race: _Race, arrays: ProjectArrays, report: ProgressListener, *, climbs: bool) -> None:
        self._race = race
        self._arrays = arrays
        self._report = report
        self._climbs = climbs
        self._given_up = False
        self._solve: tuple[MakespanModel, bool, int] | None = None

    def run(self, work: _Work, workers: int) -> None:
        """Climb while more than one makespan is open, then decide on the last; return when there is nothing to do."""
        while not (self._given_up or self._race.finished.is_set() or work.clock() >= work.deadline):
            upper = self._race.makespan
            climb = self._climbs and upper - self._race.lower > 1
            exact = MakespanModel(self._arrays, self._race.lower, upper, climb=climb)
            self._solve = (exact, climb, upper)
            exact.solve(work.deadline - work.clock(), workers, work.seed, self._report)

    def look(self, *, give_up: bool) -> None:
        """Stop the running solve when its question is answered elsewhere, or for good."""
        self._given_up = self._given_up or give_up
        if self._solve is None:
            return
        exact, climb, upper = self._solve
        answered = self._race.makespan - self._race.lower == 1 if climb else self._race.makespan < upper
        if self._given_up or self._race.finished.is_set() or answered:
            exact.stop()


class _Mirrored:
    """Reverse the schedules of the mirror before they are reported; bounds are the same."""

    def __init__(self, race: _Race) -> None:
        self._race = race
        self.bound = race.bound

    def schedule(self, schedule: ProjectSchedule) -> None:
        """Take a schedule of the mirror."""
        self._race.schedule(reversed_in_time(schedule, self._race.durations))
