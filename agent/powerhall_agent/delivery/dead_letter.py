"""Dead letters: lines that the store refused, kept in a file of bounded size with the store's reason."""

import os
from pathlib import Path

from powerhall.runtime.files import open_regular
from powerhall.runtime.log import Log

__all__ = ["DeadLetters"]

_MAX_BYTES = 4 * 1024 * 1024


class DeadLetters:
    """Appends to `rejected.lines`, which is rotated to `rejected.lines.1` when it is full."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.path = folder / "rejected.lines"
        self.points = 0
        self._log = log

    def add(self, lines: bytes, reason: str) -> None:
        """Keep refused lines; where the disk fails they are lost, and the daemon continues."""
        points = lines.count(b"\n")
        self.points += points
        self._log.warning("points_rejected", key=str(self.path), points=points, file=self.path, reason=reason)
        try:
            if self.path.exists() and self.path.stat().st_size > _MAX_BYTES:
                self.path.replace(self.path.with_suffix(".lines.1"))
            with os.fdopen(open_regular(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as out:
                out.write(f"# {reason}\n".encode() + lines)
        except OSError as error:
            self._log.warning("quarantine_disk", key=str(self.path), file=self.path, detail=error.strerror)
