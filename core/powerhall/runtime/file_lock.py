"""Locks a file or a folder between processes: flock(2) on a lock file, released when its process ends."""

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final, Self

from powerhall.runtime.errors import Retryable

__all__ = ["FileLock", "LockHeld", "lock_path"]

_POLL_S: Final = 0.02


class LockHeld(Retryable):
    """Another process holds the lock; `holder` is its process id as the lock file gives it, "?" where it has none."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path}: is locked by process {holder}")
        self.holder = holder


def lock_path(path: Path) -> Path:
    """Return the lock file beside a file: `.plan.json.lock` for `plan.json`."""
    return path.with_name(f".{path.name}.lock")


class FileLock:
    """A lock, held from its creation until `release`, the end of a `with` block, or the end of the process.

    Waits `wait_s` seconds at most. Raises LockHeld while another process (or another FileLock of this process)
    holds it, and OSError when the lock file cannot be opened. The lock file stays: removing it would let two own it.
    Whoever may read it could hold the lock, so it is closed to all whom `mode` leaves out.
    """

    def __init__(self, path: str | Path, *, wait_s: float = 0.0, mode: int = 0o644) -> None:
        self.path = Path(path)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            self._close_to_others(mode)
            self._acquire(time.monotonic() + wait_s)
        except BaseException:
            os.close(self._descriptor)
            raise
        with contextlib.suppress(OSError):  # a full disk costs the process id, not the lock
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def __enter__(self) -> Self:
        """Return the lock, which is held already."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Release the lock."""
        self.release()

    def release(self) -> None:
        """Let others take the lock; call it once."""
        os.close(self._descriptor)

    def is_in_place(self) -> bool:
        """Return whether the lock file is still the one that is locked: a file in its place keeps nobody out."""
        try:
            found, held = os.stat(self.path), os.fstat(self._descriptor)  # noqa: PTH116 - as fstat
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)

    def _close_to_others(self, mode: int) -> None:
        """Take rights from a lock file that was made with more of them; one of another owner stays as it is."""
        found = stat.S_IMODE(os.fstat(self._descriptor).st_mode)
        if found & ~mode:
            with contextlib.suppress(OSError):
                os.fchmod(self._descriptor, found & mode)

    def _acquire(self, deadline_s: float) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
                    raise LockHeld(self.path, holder or "?") from None
            else:
                return
            time.sleep(_POLL_S)
