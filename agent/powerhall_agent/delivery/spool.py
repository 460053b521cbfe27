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
* damage never blocks the start: the valid prefix is kept, the rest is moved to `damaged/`, and its points are counted
  as dropped, once, and rather too many than too few (see segment.py).
"""

import errno
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.file_lock import FileLock, LockHeld
from powerhall.runtime.log import Log
from powerhall_agent.base.durable_files import sync_folder, write_all, write_file
from powerhall_agent.delivery.batch import Batch, SpoolSegment, SpoolStats
from powerhall_agent.delivery.damaged import DamagedTails
from powerhall_agent.delivery.restamp import Change
from powerhall_agent.delivery.segment import MAGIC, encode_record, lost_points, pack, scan, unpack

__all__ = ["Batch", "Spool", "SpoolStats", "segments_of"]

_SUFFIX = ".seg"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PACK_FROM_BYTES = 4096
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR)
"""Errors of reading that say nothing about the file."""


def segments_of(folder: Path) -> list[Path]:
    """List the segment files of a spool folder, oldest first."""
    return sorted(p for p in folder.glob("*" + _SUFFIX) if digits(p.stem) is not None and p.is_file())


class Spool:
    """Bounded, crash-safe queue of lines for one consumer; append and deliver from different threads."""

    def __init__(self, folder: Path, max_bytes: int, segment_bytes: int, log: Log) -> None:
        self.folder, self.max_bytes, self.segment_bytes, self._log = folder, max_bytes, segment_bytes, log
        self._lock = threading.Lock()
        self._closed: deque[SpoolSegment] = deque()
        self._active: tuple[SpoolSegment, int] | None = None
        self._live: deque[tuple[bytes, int]] = deque()
        self._loose: deque[tuple[bytes, int]] = deque()
        self._dropped_points = self._loose_taken = 0
        try:
            self._damaged = DamagedTails(folder / "damaged", log)
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
            chosen: list[SpoolSegment] = []
            for segment in self._closed:
                if segment.in_flight or (chosen and sum(s.size for s in chosen) + segment.size > max_bytes):
                    break
                chosen.append(segment)
                if segment.packed:
                    break
            for segment in chosen:
                segment.in_flight += 1
        texts = [text for segment in chosen if (text := self._read(segment)) is not None]
        if len(texts) < len(chosen):
            self.release(Batch(b"", 0, tuple((segment, 0) for segment in chosen)))
            return None
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

    def change(self, change: Change) -> None:
        """Change all waiting lines, other than those that are being sent, before they are delivered."""
        with self._lock:
            self._roll()
            for segment in self._closed:
                segment.changes.append(change)
                segment.packed = False
            if not self._loose_taken:
                self._loose = deque((change(lines), points) for lines, points in self._loose)

    def pack_one(self, *, only_changed: bool = False) -> bool:
        """Compress the oldest closed segment that is still plain or has changes; False when there is none to do."""
        with self._lock:
            wanted = (
                s for s in self._closed
                if not s.packed and not s.in_flight and (s.changes or (not only_changed and s.size >= _PACK_FROM_BYTES))
            )  # fmt: skip
            segment = next(wanted, None)
            if segment is None:
                return False
            segment.in_flight += 1
            changes = len(segment.changes)
        lines = self._read(segment)
        if lines is None:
            with self._lock:
                segment.in_flight -= 1
            return False
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
                del segment.changes[:changes]
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
                self._damaged.bytes,
            )

    def close(self) -> None:
        """Close the files and let another process own the spool; undelivered lines stay on disk."""
        while self.pack_one(only_changed=True):
            pass
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

    def _open(self) -> tuple[SpoolSegment, int]:
        segment = SpoolSegment(self.folder / f"{self._next:016d}{_SUFFIX}")
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

    def _unlink(self, segment: SpoolSegment) -> None:
        segment.gone = True
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            self._log.warning("spool_unlink", key=str(self.folder), file=segment.path, detail=error.strerror)

    def _read(self, segment: SpoolSegment) -> bytes | None:
        """Return the undelivered lines of a segment; None where it cannot be read now.

        Damage is moved to `damaged/` and counted as dropped, once: the segment ends before it from then on.
        """
        try:
            data = segment.path.read_bytes()
        except OSError as error:
            if segment.gone:
                return b""
            self._log.warning("spool_read", key=str(segment.path), file=segment.path, detail=error.strerror)
            if error.errno in _PASSING:
                return None
            with self._lock:
                self._lose(segment, 0)
            return b""
        found = scan(data)
        if len(found.records) < len(segment.counts):
            with self._lock:
                lost = self._lose(segment, len(found.records))
                self._damaged.keep(segment.path, data[found.good_bytes :], found.good_bytes, lost)
        lines = unpack(data, found.records[segment.delivered :])
        for change in segment.changes:
            lines = change(lines)
        return lines

    def _lose(self, segment: SpoolSegment, good: int) -> int:
        """Count the undelivered points behind the first `good` records as dropped, and forget them; return them."""
        kept = max(good, segment.delivered)
        lost = sum(segment.counts[kept:])
        self._dropped_points += lost
        del segment.counts[kept:]
        return lost

    def _load(self, path: Path) -> SpoolSegment | None:
        """Load a segment of an earlier process; a torn or damaged end is cut off and moved to `damaged/`."""
        try:
            data = path.read_bytes()
            found = scan(data)
            if found.good_bytes < len(data):
                lost = lost_points(data, found)
                self._dropped_points += lost
                self._damaged.keep(path, data[found.good_bytes :], found.good_bytes, lost)
                os.truncate(path, found.good_bytes)
            if not found.records:
                path.unlink()
                return None
        except OSError as error:
            self._log.warning("spool_unreadable", file=path, detail=error.strerror, key=str(path))
            return None
        packed = any(entry.packing for entry in found.records)
        return SpoolSegment(path, found.good_bytes, [entry.points for entry in found.records], packed=packed)


def _upto(waiting: deque[tuple[bytes, int]], max_bytes: int) -> Iterator[tuple[bytes, int]]:
    size = 0
    for lines, points in waiting:
        size += len(lines)
        if size > max_bytes and size > len(lines):
            return
        yield lines, points


def _batch(taken: list[tuple[bytes, int]], parts: tuple[tuple[SpoolSegment, int], ...], loose: int = 0) -> Batch:
    return Batch(b"".join(lines for lines, _ in taken), sum(points for _, points in taken), parts, loose)
