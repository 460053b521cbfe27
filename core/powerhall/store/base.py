"""The interface of a store, and the entry of a kind of store in the registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from powerhall.store.query import Query, Row

__all__ = ["Store", "StoreKind"]


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


@dataclass(frozen=True, slots=True)
class StoreKind:
    """A kind of store: scheme and form of its URLs, the options of their query part, and the function that opens one.

    `open` gets the whole URL; it sends nothing to a server and raises ConfigError for a URL that it refuses. `file`
    returns the file of a URL, for a kind that keeps a store in one file and makes it when it is opened.
    """

    prefix: str
    form: str
    options: tuple[str, ...]
    open: Callable[[str], Store]
    file: Callable[[str], Path] | None = None
