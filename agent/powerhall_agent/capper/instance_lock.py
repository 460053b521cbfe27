"""One capper at a time on the GPUs of a host: locks that end with their process.

A process that is stuck in a driver call cannot be killed: its main thread is gone (a zombie), and a thread in the
kernel keeps its files, and with them its lock, for as long as the driver likes. Such a holder sets no limit any more,
so its lock file is replaced.

A lock file that somebody removed, or put another in the place of, keeps no second capper out: the first one looks once
a second, and takes its lock again, or ends where another capper was faster.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.file_lock import FileLock, LockHeld, lock_path
from powerhall.runtime.log import Log

__all__ = ["GPU_LOCK", "AnotherCapper", "InstanceLocks", "hold_lock", "lock_files"]

GPU_LOCK: Final = Path("/run/powerhall-capper/gpus.lock")
"""The lock of the real GPUs of a host, whatever the settings say."""
_LOOK_S: Final = 1.0
_MODE: Final = 0o600
"""The carrier's group reaches the folder: it must not hold a lock that keeps capper and `powerhall-safecaps` out."""


class AnotherCapper(PowerhallError):  # noqa: N818 - says what happened
    """Another capper runs on these GPUs, this memory or this socket."""


def lock_files(memory: Path, socket: Path, gpus: Path | None) -> tuple[Path, ...]:
    """Return the lock files of a capper; `gpus` is that of its GPUs, None for GPUs that no other process can see."""
    return (*(() if gpus is None else (gpus,)), lock_path(memory), lock_path(socket))


def hold_lock(path: Path, wait_s: float = 0.0) -> FileLock:
    """Take a lock; raises AnotherCapper while a living process holds it, OSError where there can be no lock file."""
    if path == GPU_LOCK:
        path.parent.mkdir(mode=0o755, exist_ok=True)
    try:
        return FileLock(path, wait_s=wait_s, mode=_MODE)
    except LockHeld as held:
        if not _is_dead(held.holder):
            raise AnotherCapper(f"{path}: another capper holds it (process {held.holder}); limits untouched") from None
    with contextlib.suppress(LockHeld), _takeover(path):
        with contextlib.suppress(FileNotFoundError):
            if _is_dead(path.read_text(encoding="ascii", errors="replace").strip()):
                path.unlink()
        return FileLock(path, mode=_MODE)
    raise AnotherCapper(f"{path}: another capper holds it; limits untouched")


def _takeover(path: Path) -> FileLock:
    return FileLock(path.with_name(path.name + ".takeover"), wait_s=1.0, mode=_MODE)


class InstanceLocks:
    """The locks of this capper, looked at once a second."""

    def __init__(self, locks: Sequence[FileLock], log: Log) -> None:
        self._locks, self._log = list(locks), log
        self._next_s = 0.0

    def check(self, mono_s: float) -> None:
        """Take a lock again whose file has gone; raises AnotherCapper where another capper has it now."""
        if mono_s < self._next_s:
            return
        self._next_s = mono_s + _LOOK_S
        for number, lock in enumerate(self._locks):
            if lock.is_in_place():
                continue
            try:
                self._locks[number] = hold_lock(lock.path)
            except OSError as error:
                detail = f"its file has gone, and cannot be made again: {error.strerror}"
                self._log.warning("lock", key=str(lock.path), path=lock.path, detail=detail)
                continue
            lock.release()
            self._log.warning("lock", path=lock.path, detail="its file was removed; taken again")

    def release(self) -> None:
        """Let others take the locks."""
        for lock in self._locks:
            lock.release()


def _is_dead(holder: str) -> bool:
    """Return whether the main thread of a process has ended, though a thread of it may be stuck in the kernel."""
    if digits(holder) in {None, os.getpid()}:
        return False
    try:
        text = Path(f"/proc/{holder}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[:1] in (["Z"], ["X"])
