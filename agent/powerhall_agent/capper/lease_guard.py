"""The capper's end of its guard: starts the process, tells it the end of each lease, and starts it again if it dies."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from powerhall.runtime.log import Log

__all__ = ["LeaseGuard"]

_AGAIN_S: Final = 1.0


class LeaseGuard:
    """A process of `guard.py`; nothing that happens to it keeps the capper from its work."""

    def __init__(self, config: Path, simulated: Path | None, log: Log) -> None:
        """`simulated` is the state file of simulated GPUs, None for those of this host."""
        self._command = [sys.executable, "-m", "powerhall_agent.capper.guard", "--config", str(config)]
        if simulated is not None:
            self._command += ["--state-file", str(simulated)]
        self._log = log
        self._until_s = 0.0
        self._next_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self.look_after()

    def tell(self, until_s: float) -> None:
        """Tell the end of the lease whose caps are about to be set, in s of CLOCK_BOOTTIME; 0: the safe caps hold."""
        if until_s != self._until_s:
            self._until_s = until_s
            self._write()

    def look_after(self) -> None:
        """Start the process where it does not run, at most once a second."""
        if self._process is not None and self._process.poll() is None:
            return
        if (now_s := time.monotonic()) < self._next_s:
            return
        self._next_s = now_s + _AGAIN_S
        if self._process is not None:
            self._log.warning("guard", detail=f"ended with {self._process.returncode}; started again")
            self.close()
        try:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)
        except OSError as error:
            self._log.warning("guard", key="start", detail=f"cannot be started: {error.strerror}")
            return
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._write()

    def close(self) -> None:
        """Let the process end."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _write(self) -> None:
        if self._process is None or self._process.stdin is None or self._process.stdin.closed:
            return
        with contextlib.suppress(OSError):  # it has died, or does not read: `look_after`, and the watchdog, come
            os.write(self._process.stdin.fileno(), f"{self._until_s:.3f}\n".encode())
