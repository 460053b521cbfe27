"""A Dask cluster, by the address of its scheduler: independent calls on its workers, in the order of their items.

A worker that dies loses nothing: its calls run again elsewhere, and what the workers hold is sent again. Every call
first compares the versions that results depend on, so that a worker of another version computes nothing. Dask is the
extra `cluster`, and is imported on first use.
"""

import importlib.util
import logging
import platform
import re
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError as ThreadCancelled
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TypeVar

import powerhall
from powerhall.runtime.errors import PowerhallError, Rejected, Retryable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

__all__ = ["Cluster", "OtherVersion", "check_address", "connected", "is_open_to_others", "versions"]

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")
_TRIES = 3
"""Attempts in a row that bring no result, after which calls are given up."""
_CONNECT_S = 30.0
_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})")
_PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "ortools", "msgspec")
_NO_POWERHALL = "no Powerhall, or another version: pip install 'powerhall[cluster,twin]' there"
_LOCAL = ("localhost", "[::1]")


class OtherVersion(Rejected):
    """A worker has another version of something that results depend on."""


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions that results depend on, of this process."""
    found = [("powerhall", powerhall.__version__), ("python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "none"))
    return tuple(found)


def check_address(text: str) -> str:
    """Return the address of a scheduler; another form, or no Dask on this machine, raises PowerhallError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 65536:
        allowed = "must be an address such as tcp://10.0.0.1:8786 or tls://10.0.0.1:8786"
        raise Rejected.field("command line", "--scheduler", text, allowed)
    if importlib.util.find_spec("distributed") is None:
        raise PowerhallError("--scheduler needs Dask: pip install 'powerhall[cluster]'")
    return text


def is_open_to_others(address: str) -> bool:
    """Return whether an address is reached over a network without TLS."""
    found = _ADDRESS.fullmatch(address)
    return found is not None and found[1] == "tcp" and not (found[2] in _LOCAL or found[2].startswith("127."))


def _checked_call(expected: tuple[tuple[str, str], ...], function: Callable[[S, I], R], shared: S, item: I) -> R:
    """Run on a worker: the call, where its versions are those of the caller."""
    other = [f"{name} {own} instead of {want}" for (name, own), (_, want) in zip(versions(), expected, strict=True)
             if own != want]  # fmt: skip
    if other:
        raise OtherVersion(f"worker on {platform.node()}: has {', '.join(other)}: install the same versions there")
    return function(shared, item)


class Cluster:
    """A connection to a cluster.

    `patience_s` is how long the calls of a map may take before the cluster counts as lost; None waits for ever.
    """

    def __init__(
        self, client: "Client", address: str, patience_s: float | None = None, connect_s: float = _CONNECT_S
    ) -> None:
        self.client = client
        self.address = address
        self.patience_s = patience_s
        self.connect_s = connect_s
        self._held: tuple[object, list[Any]] | None = None

    @property
    def threads(self) -> int:
        """Return the threads of all workers, at least 1."""
        return max(1, int(sum(self.client.nthreads().values())))

    def map(
        self,
        function: Callable[[S, I], R],
        shared: S,
        items: Sequence[I],
        done: Callable[[int, R], None] = lambda _number, _result: None,
    ) -> list[R]:
        """Return function(shared, item) of every item, in order; `done` hears of each as it ends.

        An exception of the function is raised here, OtherVersion of a worker too. Calls that lose their worker are
        made again; Retryable is raised once three attempts in a row bring no result, or the scheduler has gone. The
        workers all hold what is shared, which is sent once for calls with the same object.
        """
        return self._all(function, shared, items, done, parts=None)

    def each(self, function: Callable[[S, I], R], parts: Sequence[S], items: Sequence[I]) -> list[R]:
        """Return function(part, item) of every pair, as `map` does; each part is held by one worker."""
        return self._all(function, parts, items, lambda _number, _result: None, parts=parts)

    def _all(
        self,
        function: Callable[[S, I], R],
        shared: object,
        items: Sequence[I],
        done: Callable[[int, R], None],
        *,
        parts: Sequence[object] | None,
    ) -> list[R]:
        results: dict[int, R] = {}
        tried = 0
        while len(results) < len(items):
            before = len(results)
            left = {number: item for number, item in enumerate(items) if number not in results}
            try:
                held = self._hold(shared, parts, again=tried > 0)
                self._run(function, held, left, results, done)
            except _lost_errors():
                self._check_scheduler()
            except TimeoutError:
                raise Retryable(f"{self.address}: calls were not done within {self.patience_s:g} s") from None
            tried = tried + 1 if len(results) == before else 1
            if tried > _TRIES:
                lost = len(items) - len(results)
                raise Retryable(f"{self.address}: {lost} of {len(items)} calls lost their worker {_TRIES} times")
        return [results[number] for number in range(len(items))]

    def _run(
        self,
        function: Callable[[S, I], R],
        held: list[Any],
        items: dict[int, I],
        results: dict[int, R],
        done: Callable[[int, R], None],
    ) -> None:
        from distributed import as_completed

        calls: dict[Any, int] = {
            self.client.submit(_checked_call, versions(), function, held[number % len(held)], item, pure=False): number
            for number, item in items.items()
        }
        for future in as_completed(list(calls), loop=self.client.loop, timeout=self.patience_s):
            number = calls.pop(future)
            if future.status == "error" and not isinstance(future.exception(), _lost_errors()):
                self._raise(future)
            if future.status != "finished":
                continue
            try:
                result = future.result()
            except _lost_errors():
                continue  # its worker died before it was fetched
            results[number] = result
            done(number, result)

    def _raise(self, future: Any) -> None:  # noqa: ANN401 - Dask's future
        """Raise the exception of a call; a worker without Powerhall is said in a line."""
        error: BaseException = future.exception()
        if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("powerhall"):
            raise OtherVersion(f"{self.address}: a worker has {_NO_POWERHALL}") from None
        if isinstance(error, RuntimeError) and "deserialization of the task graph" in str(error):
            raise OtherVersion(f"{self.address}: the scheduler has {_NO_POWERHALL}") from None
        raise error

    def _check_scheduler(self) -> None:
        if self.client.status != "running":
            raise Retryable(f"{self.address}: the scheduler has gone")

    def _hold(self, shared: object, parts: Sequence[object] | None, *, again: bool) -> list[Any]:
        """Return what the workers hold, sent anew where workers were lost: one object, or a part for each call."""
        if self._held is not None and self._held[0] is shared and not again:
            return self._held[1]
        self._held = None  # lets the workers forget it
        lost: tuple[type[BaseException], ...] = (OSError, *_lost_errors())
        for attempt in range(_TRIES):
            try:
                self.client.wait_for_workers(1, timeout=self.connect_s)
                if parts is None:
                    held = [self.client.scatter(shared, broadcast=True, hash=False)]
                else:
                    held = list(self.client.scatter(list(parts), hash=False))
            except TimeoutError:
                break
            except lost:  # a worker died, and the scheduler does not know yet
                self._check_scheduler()
                time.sleep(attempt + 1)
            else:
                self._held = shared, held
                return held
        raise Retryable(f"{self.address}: no worker of the cluster answers")


def _lost_errors() -> tuple[type[BaseException], ...]:
    """Return what Dask raises where a worker was lost: of the call, or of what it holds."""
    from asyncio import CancelledError

    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    return KilledWorker, FutureCancelledError, CommClosedError, CancelledError, ThreadCancelled


@contextmanager
def connected(address: str, patience_s: float | None = None, connect_s: float | None = None) -> "Iterator[Cluster]":
    """Connect to a scheduler, and close the connection at the end; no answer in `connect_s` (30) raises Retryable.

    `tls://` takes certificates from Dask's own settings; Rejected says which where they are missing.
    """
    check_address(address)
    from distributed import Client

    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it would say is said by our errors
    try:
        client = Client(address, timeout=connect_s or _CONNECT_S, set_as_default=False)
    except TypeError as error:
        wanted = "distributed.comm.tls.ca-file, .client.cert and .client.key"
        raise Rejected(f"{address}: TLS needs Dask's settings {wanted}: {error}") from None
    except ssl.SSLError as error:
        raise Rejected(f"{address}: TLS: {error}") from None
    except (OSError, TimeoutError, ValueError) as error:
        raise Retryable(f"{address}: no scheduler answers: {error}") from None
    try:
        yield Cluster(client, address, patience_s, connect_s or _CONNECT_S)
    finally:
        client.close()
