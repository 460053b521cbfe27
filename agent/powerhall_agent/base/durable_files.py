"""Files that must be on the medium when a call returns: whole writes, synced folders, one owner per folder."""

import contextlib
import fcntl
import os
from pathlib import Path

from powerhall.runtime.errors import Rejected

__all__ = ["own", "sync_folder", "write_all", "write_file"]


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes, however many calls it takes."""
    done = 0
    while done < len(data):
        done += os.write(descriptor, data[done:] if done else data)


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file and sync its data."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        write_all(descriptor, data)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a new name in the folder survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own(folder: Path) -> int:
    """Lock the folder for this process; Rejected when another process holds it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "?"
        os.close(descriptor)
        raise Rejected(f"spool {folder}: is in use by process {owner}; every agent needs a spool of its own") from None
    with contextlib.suppress(OSError):  # a full disk does not keep us from owning the spool
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
