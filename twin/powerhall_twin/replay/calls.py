"""Independent calls, in this process, in processes of this machine, or on a cluster; results are the same."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from powerhall.runtime.errors import PowerhallError
from powerhall_optimizer.cluster import connected

__all__ = ["Calls", "Here", "calls_on"]

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")
_TRIES = 3
"""Pools in a row that end without a result, after which calls are given up."""


class Calls(Protocol):
    """Where calls are made."""

    def map(
        self, function: Callable[[S, I], R], shared: S, items: Sequence[I], done: Callable[[int, R], None]
    ) -> list[R]:
        """Return function(shared, item) of every item, in order; `done` hears of each as it ends."""
        ...


class Here:
    """This machine: `workers` processes, or this process for one."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def map(
        self,
        function: Callable[[S, I], R],
        shared: S,
        items: Sequence[I],
        done: Callable[[int, R], None] = lambda _number, _result: None,
    ) -> list[R]:
        """Return function(shared, item) of every item; a call whose process was killed is made again."""
        results: dict[int, R] = {}

        def keep(number: int, result: R) -> None:
            results[number] = result
            done(number, result)

        if self.workers == 1 or len(items) == 1:
            for number, item in enumerate(items):
                keep(number, function(shared, item))
        tried = 0
        while len(results) < len(items):
            before = len(results)
            left = {number: item for number, item in enumerate(items) if number not in results}
            self._run(function, shared, left, keep)
            tried = tried + 1 if len(results) == before else 0
            if tried == _TRIES:
                raise PowerhallError(f"{len(items) - len(results)} of {len(items)} runs died {_TRIES} times")
        return [results[number] for number in range(len(items))]

    def _run(
        self, function: Callable[[S, I], R], shared: S, items: dict[int, I], keep: Callable[[int, R], None]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        workers = min(self.workers, len(items))
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_hold, initargs=(shared,)) as pool:
            try:
                numbers = {pool.submit(_call, function, item): number for number, item in items.items()}
                for future in as_completed(numbers):
                    keep(numbers[future], future.result())
            except BrokenProcessPool:
                return
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


_held: list[Any] = []


def _hold(shared: object) -> None:
    """Run at the start of a worker: hold what all its calls share, which is sent once."""
    _held.append(shared)


def _call(function: Callable[[S, I], R], item: I) -> R:
    return function(_held[0], item)


@contextmanager
def calls_on(scheduler: str | None, workers: int) -> Iterator[Calls]:
    """Make calls on the cluster of a scheduler where one is named, else in so many processes here."""
    if scheduler is None:
        yield Here(workers)
        return
    with connected(scheduler) as cluster:
        yield cluster
