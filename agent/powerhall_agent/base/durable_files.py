"""Files that must be on the medium when a call returns: whole writes and synced folders."""

import os
from pathlib import Path

__all__ = ["sync_folder", "write_all", "write_file"]


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes, however many calls it takes."""
    done = 0
    while done < len(data):
        done += os.write(descriptor, data[done:] if done else data)


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file and sync its data."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC, 0o640)
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
