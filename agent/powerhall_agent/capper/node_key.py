"""The node key as a file that may be missing, damaged, mended or exchanged while the capper runs."""

import os
import stat
from pathlib import Path
from typing import Final

from powerhall_agent.capper.safe_config import read_bounded

__all__ = ["NodeKeyFile"]

_MAX_BYTES: Final = 4096
_RETRY_S: Final = 1.0
_OTHERS: Final = 0o066


class NodeKeyFile:
    """64 hex digits in a file; read again when the file changes, and every second while there is no good key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: tuple[int, ...] | None = None
        self._next_s = 0.0
        self.key: bytes | None = None
        self.problem = f"{path}: not read yet"
        """Why there is no key, without showing what the file holds; "" where there is one."""
        self.exposed = ""
        """Why others than its owner may know the key, or have written it; "" where none can."""

    def refresh(self, mono_s: float) -> bool:
        """Look at the file once a second; return whether key or problem changed."""
        if mono_s < self._next_s:
            return False
        self._next_s = mono_s + _RETRY_S
        state = self._stat()
        if state == self._state and self.key is not None:
            return False
        before = (self.key, self.problem, self.exposed)
        self._state = state
        self.exposed = self._exposure()
        self._read()
        return before != (self.key, self.problem, self.exposed)

    def _exposure(self) -> str:
        try:
            mode = stat.S_IMODE(os.stat(self._path).st_mode)  # noqa: PTH116 - as above
        except OSError:
            return ""
        if not mode & _OTHERS:
            return ""
        return (
            f"{self._path}: mode {mode:04o}: others may read or write the node key: chmod 0400, and make a new site "
            "key where somebody may have read it"
        )

    def _stat(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - one call, all numbers
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size, found.st_ctime_ns

    def _read(self) -> None:
        try:
            key = bytes.fromhex(read_bounded(self._path, _MAX_BYTES).decode("ascii").strip())
        except OSError as error:
            self.key, self.problem = None, f"{self._path}: cannot read the key: {error.strerror or error}"
            return
        except ValueError:
            key = b""
        self.key, self.problem = (key, "") if len(key) == 32 else (None, f"{self._path}: key: must be 64 hex digits")
