"""The interface of a store, and the entry of a kind of store in the registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from powerhall.runtime.errors import PowerhallError
from powerhall.store.query import Query, Row

__all__ = ["Ask", "PartedStore", "ServerClock", "Store", "StoreKind", "what_answers"]


class Store(Protocol):
    """A place for points and documents; errors are Retryable, Rejected (bad data) or ConfigError (bad set-up)."""

    def write(self, lines: bytes) -> None:
        """Write line protocol with millisecond timestamps; writing the same lines again changes nothing.

        Retryable: nothing may have arrived, send again. Rejected: some line is refused; others may have arrived.
        """
        ...

    def query(self, query: Query, start_s: float, end_s: float) -> list[Row]:
        """Answer a query over start_s <= time < end_s, ordered by group and time."""
        ...

    def put_document(self, kind: str, key: str, time_s: float, body: bytes) -> None:
        """Keep a document (a plan, a job queue, a lease) under its kind and key as of `time_s`."""
        ...

    def latest_document(self, kind: str, key: str | None = None) -> bytes | None:
        """Return the newest complete document of this kind and key, or of any key; None where there is none."""
        ...

    def close(self) -> None:
        """Give back connections and files."""
        ...


@runtime_checkable
class ServerClock(Protocol):
    """A store on a server that tells its time."""

    def server_time_s(self) -> float | None:
        """Return the server's clock in s since the epoch, to the second; None where it does not tell."""
        ...


@runtime_checkable
class PartedStore(Protocol):
    """A store made of several, of which some may be silent."""

    def query_answering(
        self, query: Query, start_s: float, end_s: float, tell: Callable[[str, PowerhallError], None]
    ) -> list[Row]:
        """Answer by the parts that answer and tell of the others by name; where none answers, raise as `query` does."""
        ...


Ask = Callable[[Query, float, float], list[Row]]
"""The `query` of a store, or what stands in its place."""


def what_answers(store: Store, tell: Callable[[str, PowerhallError], None]) -> Ask:
    """Return the store's `query` for a reader that counts the unknown at its worst: silent parts are told, not raised.

    A part tells its hall's name ("" for the site's). A store that is not made of parts raises as ever.
    """
    if not isinstance(store, PartedStore):
        return store.query
    parted = store
    return lambda query, start_s, end_s: parted.query_answering(query, start_s, end_s, tell)


@dataclass(frozen=True, slots=True)
class StoreKind:
    """A kind of store: scheme and form of its URLs, the options of their query part, and the function that opens one.

    `open` gets the whole URL; it sends nothing to a server and raises ConfigError for a URL that it refuses. `file`
    returns the file of a URL, for a kind that keeps a store in one file and makes it when it is opened. A kind that is
    made of other stores has `join` in the place of `open`: it gets the URL, the function that opens one of them, and
    one that makes an empty store in memory.
    """

    prefix: str
    form: str
    options: tuple[str, ...]
    open: Callable[[str], Store] | None
    file: Callable[[str], Path] | None = None
    join: Callable[[str, Callable[[str], Store], Callable[[], Store]], Store] | None = None
