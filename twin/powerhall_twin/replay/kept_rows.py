"""Results that are done, beside the output of a long command, so that one that was killed goes on where it was.

A line each: a hash of the inputs and of what follows, then the result as JSON. A line that is half-written, damaged, or
of other inputs counts as absent.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

import powerhall
from powerhall.runtime.decode.bytes_in import read_file
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.decode.limits import MOST_JSON_BYTES
from powerhall.runtime.errors import PowerhallError, Retryable
from powerhall.runtime.file_lock import FileLock, LockHeld, lock_path
from powerhall.runtime.files import replace_file
from powerhall_twin.replay.calls import Calls

__all__ = ["KeptRows", "inputs_hash", "kept_beside", "map_kept"]


class _Row(Protocol):
    """A result that knows what it is of."""

    @property
    def point(self) -> Hashable: ...


S = TypeVar("S")
P = TypeVar("P", bound=Hashable)
T = TypeVar("T", bound=_Row)


def inputs_hash(*inputs: object) -> bytes:
    """Return a hash of everything that results depend on, the version of the software included."""
    return hashlib.sha256(msgspec.json.encode((powerhall.__version__, inputs))).digest()


class KeptRows(Generic[T]):
    """The results of one file, which belongs to this process."""

    def __init__(self, path: Path, inputs: bytes, kind: type[T]) -> None:
        self.path, self.inputs = path, inputs
        self.rows: list[T] = []
        lines = read_file(path, MOST_JSON_BYTES).splitlines() if path.exists() else []
        bodies = [line.partition(b" ")[2] for line in lines]
        bodies = [body for line, body in zip(lines, bodies, strict=True) if line == self._line(body)]
        for body in bodies:
            try:
                self.rows.append(decode_json(body, kind, str(path)))
            except PowerhallError:
                continue
        replace_file(path, b"".join(self._line(body) + b"\n" for body in bodies))

    def keep(self, row: T) -> None:
        """Keep a result."""
        self.rows.append(row)
        with self.path.open("ab") as file:
            file.write(self._line(msgspec.json.encode(row)) + b"\n")

    def _line(self, body: bytes) -> bytes:
        return hashlib.sha256(self.inputs + body).hexdigest().encode() + b" " + body


@contextmanager
def kept_beside(out: Path | None, inputs: bytes, kind: type[T]) -> Iterator[KeptRows[T] | None]:
    """Keep results in `OUT.rows` until the block ends, which writes the output; None where there is no output.

    Another process that writes the same output raises Retryable.
    """
    if out is None:
        yield None
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(lock_path(out))
    except LockHeld as error:
        raise Retryable(f"{out}: process {error.holder} is writing it") from None
    with lock:
        kept = KeptRows(out.with_name(f"{out.name}.rows"), inputs, kind)
        try:
            yield kept
        except Retryable as error:
            raise Retryable(
                f"{error}; the same command goes on, {len(kept.rows)} runs are kept in {kept.path}"
            ) from error
        kept.path.unlink(missing_ok=True)


def map_kept(
    calls: Calls,
    function: Callable[[S, P], T],
    shared: S,
    points: Sequence[P],
    *,
    kept: KeptRows[T] | None,
    progress: Callable[[float], None],
) -> list[T]:
    """Return function(shared, point) of every point, in order; a result that is kept is not computed again."""
    wanted = set(points)
    rows: dict[Hashable, T] = {} if kept is None else {row.point: row for row in kept.rows if row.point in wanted}

    def done(_number: int, row: T) -> None:
        rows[row.point] = row
        if kept is not None:
            kept.keep(row)
        progress(len(rows) / len(wanted))

    calls.map(function, shared, [point for point in points if point not in rows], done)
    return [rows[point] for point in points]
