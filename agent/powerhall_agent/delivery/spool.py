"""The spool of one output: appended lines stay on disk until the store has acknowledged them.

On disk, in the output's folder: `NNNNNNNNNNNNNNNN.seg` (segments by rising number, format in segment.py), `lock`
(held by the process that owns the spool), `damaged/` (tails that failed their checksum, for inspection),
`rejected.lines` (written by dead_letter.py, not here).

Invariants:
* when `append` returns with `saved`, the lines are on the medium (append, checksum, fdatasync) and survive kill -9 and
  power loss; the folder is synced when a segment is made;
* delivered means unlinked: a segment goes when all its records are acknowledged and nothing is appended to it. After a
  crash a segment is sent again from its start: the same points with the same timestamps, so the store ends up the same;
* segments only grow at their end, and only the newest one; `delivered` counts acknowledged records from the front;
* a segment is replaced by its packed form through a temporary file and rename, so that a crash leaves one of the two;
* the files never take more than `max_bytes`; the oldest segment goes first, and its points are counted as dropped;
* `append` never raises for a disk that is full or broken: the newest lines are kept in memory (up to the size of one
  segment) and the next append tries the disk again;
* damage never blocks the start: the valid prefix is kept, the rest is moved to `damaged/` and counted.
"""

import errno
import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.file_lock import FileLock, LockHeld
from powerhall.runtime.log import Log
from powerhall_agent.base.durable_files import sync_folder, write_all, write_file
from powerhall_agent.delivery.segment import MAGIC, Scan, encode_record, pack, scan, unpack

__all__ = ["Batch", "Spool", "SpoolStats", "segments_of"]

_SUFFIX = ".seg"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ASIDE_BYTES = 16 * 1024 * 1024
_PACK_FROM_BYTES = 4096


@dataclass(slots=True, eq=False)
class _Segment:
    """One file; `counts` are the points of each record, of which the first `delivered` are acknowledged."""

    path: Path
    size: int = 0
    counts: list[int] = field(default_factory=list)
    delivered: int = 0
    in_flight: int = 0
    packed: bool = False
    gone: bool = False

    @property
    def points(self) -> int:
        return sum(self.counts[self.delivered :])


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines to deliver; hand the batch back by `Spool.ack` (delivered) or `Spool.release` (not now)."""

    lines: bytes
    points: int
    parts: tuple[tuple[_Segment, int], ...]
    """Segments and the record number up to which each is delivered with this batch."""
    loose: int = 0
    """Records from memory only (the disk did not take them)."""


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """Amount of data that waits, and that was lost since the start."""

    bytes_waiting: int
    points_waiting: int
    segments: int
    dropped_points: int
    damaged_bytes: int


def segments_of(folder: Path) -> list[Path]:
    """List the segment files of a spool folder, oldest first."""
    return sorted(p for p in folder.glob("*" + _SUFFIX) if p.stem.isdigit() and p.is_file())


class Spool:
    """Bounded, crash-safe queue of lines for one consumer; append and deliver from different threads."""

    def __init__(self, folder: Path, max_bytes: int, segment_bytes: int, log: Log) -> None:
        self.folder, self.max_bytes, self.segment_bytes, self._log = folder, max_bytes, segment_bytes, log
        self._lock = threading.Lock()
        self._closed: deque[_Segment] = deque()
        self._active: tuple[_Segment, int] | None = None
        self._live: deque[tuple[bytes, int]] = deque()
        self._loose: deque[tuple[bytes, int]] = deque()
        self._dropped_points = self._damaged_bytes = self._loose_taken = 0
        try:
            (folder / "damaged").mkdir(parents=True, exist_ok=True)
            self._owner = FileLock(folder / "lock", mode=0o640)
        except LockHeld as error:
            raise Rejected(
                f"spool {folder}: is in use by process {error.holder}; every agent needs a spool of its own"
            ) from None
        except OSError as error:
            raise ConfigError(f"spool {folder}: {error.strerror}; the agent must be able to write there") from None
        self._next = 1
        for path in segments_of(folder):
            self._next = int(path.stem) + 1
            found = self._load(path)
            if found is not None:
                self._closed.append(found)
        for left in folder.glob("*.tmp"):
            left.unlink(missing_ok=True)

    def append(self, lines: bytes) -> bool:
        """Keep newline-terminated lines; True when they are on the medium, False when memory alone holds them."""
        points = lines.count(b"\n")
        data = encode_record(lines, points)
        with self._lock:
            while self._bytes() + len(data) > self.max_bytes and self._drop_oldest():
                pass
            if self._active is not None and self._active[0].size + len(data) > self.segment_bytes:
                self._roll()
            saved = self._write(data)
            if saved:
                assert self._active is not None
                self._active[0].counts.append(points)
                self._live.append((lines, points))
            else:
                self._keep_loose(lines, points)
        return saved

    def live(self, max_bytes: int) -> Batch | None:
        """Take the newest undelivered lines: those that the disk refused, else those of the newest segment."""
        with self._lock:
            if self._loose and not self._loose_taken:
                taken = list(_upto(self._loose, max_bytes))
                self._loose_taken = len(taken)
                return _batch(taken, (), len(taken))
            if self._active is None or not self._live or self._active[0].in_flight:
                return None
            segment = self._active[0]
            taken = list(_upto(self._live, max_bytes))
            segment.in_flight += 1
            return _batch(taken, ((segment, segment.delivered + len(taken)),))

    def backlog(self, max_bytes: int) -> Batch | None:
        """Take the oldest closed segments that are not in flight, as many as fit (at least one)."""
        with self._lock:
            chosen: list[_Segment] = []
            for segment in self._closed:
                if segment.in_flight or (chosen and sum(s.size for s in chosen) + segment.size > max_bytes):
                    break
                chosen.append(segment)
                if segment.packed:
                    break
            for segment in chosen:
                segment.in_flight += 1
        texts = [self._read(segment) for segment in chosen]
        parts = tuple((segment, len(segment.counts)) for segment in chosen)
        lines = b"".join(texts)
        batch = Batch(lines, lines.count(b"\n"), parts)
        if chosen and not lines:
            self.ack(batch)
            return self.backlog(max_bytes)
        return batch if chosen else None

    def backlog_points(self) -> int:
        """Count the points of the oldest closed segment, 0 when there is none."""
        with self._lock:
            return self._closed[0].points if self._closed else 0

    def ack(self, batch: Batch) -> None:
        """Forget a delivered batch; segments with nothing left are unlinked."""
        with self._lock:
            for _ in range(batch.loose):
                if self._loose:
                    self._loose.popleft()
            self._loose_taken -= batch.loose
            for segment, upto in batch.parts:
                segment.in_flight -= 1
                if self._active is not None and segment is self._active[0]:
                    for _ in range(upto - segment.delivered):
                        self._live.popleft()
                segment.delivered = max(segment.delivered, upto)
                if segment in self._closed and segment.delivered >= len(segment.counts):
                    self._closed.remove(segment)
                    self._unlink(segment)

    def release(self, batch: Batch) -> None:
        """Put back a batch that could not be delivered now."""
        with self._lock:
            self._loose_taken -= batch.loose
            for segment, _ in batch.parts:
                segment.in_flight -= 1

    def pack_one(self) -> bool:
        """Compress the oldest closed segment that is still plain; False when there is none to do."""
        with self._lock:
            wanted = (s for s in self._closed if not s.packed and not s.in_flight and s.size >= _PACK_FROM_BYTES)
            segment = next(wanted, None)
            if segment is None:
                return False
            segment.in_flight += 1
        lines = self._read(segment)
        points = lines.count(b"\n")
        data = pack(lines, points)
        beside = segment.path.with_suffix(".tmp")
        try:
            write_file(beside, data)
            ready = True
        except OSError:
            beside.unlink(missing_ok=True)
            ready = False
        with self._lock:
            segment.in_flight -= 1
            segment.packed = True  # where the disk is too full for the packed copy, do not try this segment again
            if ready and not segment.gone:
                beside.replace(segment.path)
                segment.size, segment.counts, segment.delivered = len(data), [points], 0
            elif ready:
                beside.unlink(missing_ok=True)
        return True

    def stats(self) -> SpoolStats:
        """Sum up the waiting data, including points that only memory holds."""
        with self._lock:
            points = (
                sum(s.points for s in self._closed) + sum(p for _, p in self._live) + sum(p for _, p in self._loose)
            )
            return SpoolStats(
                self._bytes(),
                points,
                len(self._closed) + (self._active is not None),
                self._dropped_points,
                self._damaged_bytes,
            )

    def close(self) -> None:
        """Close the files and let another process own the spool; undelivered lines stay on disk."""
        with self._lock:
            self._roll()
            self._owner.release()

    # Everything below is called with the lock held, except _read.

    def _bytes(self) -> int:
        return sum(s.size for s in self._closed) + (self._active[0].size if self._active is not None else 0)

    def _write(self, data: bytes) -> bool:
        while True:
            try:
                segment, descriptor = self._active or self._open()
                write_all(descriptor, data)
                os.fdatasync(descriptor)
                segment.size += len(data)
                return True
            except OSError as error:
                self._log.warning("spool_disk", key=str(self.folder), folder=self.folder, detail=error.strerror)
                self._cut_back()
                if error.errno not in _FULL or not self._drop_oldest():
                    self._roll()
                    return False

    def _open(self) -> tuple[_Segment, int]:
        segment = _Segment(self.folder / f"{self._next:016d}{_SUFFIX}")
        self._next += 1
        descriptor = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            write_all(descriptor, MAGIC)
            sync_folder(self.folder)
        except OSError:
            os.close(descriptor)
            segment.path.unlink(missing_ok=True)
            raise
        segment.size = len(MAGIC)
        self._active = segment, descriptor
        return self._active

    def _cut_back(self) -> None:
        """Remove a half-written record from the newest segment."""
        if self._active is not None:
            segment, descriptor = self._active
            try:
                os.ftruncate(descriptor, segment.size)
            except OSError:
                self._roll()  # nothing may follow a half-written record

    def _roll(self) -> None:
        """End the newest segment: delete it when all is delivered, else queue it behind the older ones."""
        if self._active is None:
            return
        segment, descriptor = self._active
        self._active = None
        self._live.clear()
        os.close(descriptor)
        if segment.delivered >= len(segment.counts):
            self._unlink(segment)
        else:
            self._closed.append(segment)

    def _drop_oldest(self) -> bool:
        """Drop the oldest undelivered segment; False when only the newest is left."""
        if not self._closed:
            return False
        segment = next((s for s in self._closed if not s.in_flight), self._closed[0])
        self._closed.remove(segment)
        self._dropped_points += segment.points
        self._log.warning("spool_full", key=str(self.folder), folder=self.folder, dropped_points=self._dropped_points)
        self._unlink(segment)
        return True

    def _keep_loose(self, lines: bytes, points: int) -> None:
        self._loose.append((lines, points))
        while sum(len(text) for text, _ in self._loose) > self.segment_bytes and len(self._loose) > 1:
            if self._loose_taken:
                break
            self._dropped_points += self._loose.popleft()[1]

    def _unlink(self, segment: _Segment) -> None:
        segment.gone = True
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            self._log.warning("spool_unlink", key=str(self.folder), file=segment.path, detail=error.strerror)

    def _read(self, segment: _Segment) -> bytes:
        """Return the undelivered lines of a segment; damage is moved to `damaged/` and counted as dropped."""
        try:
            data = segment.path.read_bytes()
        except OSError as error:
            if not segment.gone:
                self._log.warning("spool_read", key=str(segment.path), file=segment.path, detail=error.strerror)
                with self._lock:
                    self._dropped_points += segment.points
            return b""
        found = scan(data)
        if found.points < sum(segment.counts):
            with self._lock:
                self._set_aside(segment.path, data[found.good_bytes :], found.good_bytes)
                self._dropped_points += sum(segment.counts) - found.points
        return unpack(data, found.records[segment.delivered :])

    def _load(self, path: Path) -> _Segment | None:
        """Load a segment of an earlier process; a torn or damaged end is cut off and moved to `damaged/`."""
        try:
            data = path.read_bytes()
            found = scan(data)
            if found.good_bytes < len(data):
                self._set_aside(path, data[found.good_bytes :], found.good_bytes)
                os.truncate(path, found.good_bytes)
            if not found.records:
                path.unlink()
                return None
        except OSError as error:
            self._log.warning("spool_unreadable", file=path, detail=error.strerror, key=str(path))
            return None
        return _segment(path, found)

    def _set_aside(self, path: Path, tail: bytes, offset: int) -> None:
        self._damaged_bytes += len(tail)
        folder = self.folder / "damaged"
        self._log.warning("spool_damage", key="", file=path, offset=offset, bytes=len(tail), kept_in=folder)
        try:
            if len(tail) + sum(p.stat().st_size for p in folder.iterdir()) <= _ASIDE_BYTES:
                write_file(folder / f"{path.stem}@{offset}", tail)
        except OSError as error:
            self._log.warning("spool_damage_not_kept", key="", file=path, detail=error.strerror)


def _segment(path: Path, found: Scan) -> _Segment:
    packed = any(entry.packing for entry in found.records)
    return _Segment(path, found.good_bytes, [entry.points for entry in found.records], packed=packed)


def _upto(waiting: deque[tuple[bytes, int]], max_bytes: int) -> Iterator[tuple[bytes, int]]:
    size = 0
    for lines, points in waiting:
        size += len(lines)
        if size > max_bytes and size > len(lines):
            return
        yield lines, points


def _batch(taken: list[tuple[bytes, int]], parts: tuple[tuple[_Segment, int], ...], loose: int = 0) -> Batch:
    return Batch(b"".join(lines for lines, _ in taken), sum(points for _, points in taken), parts, loose)
