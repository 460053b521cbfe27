"""Run Slurm's commands; scontrol reads writes from a complete file, so that none is truncated."""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime

from powerhall.runtime.errors import ConfigError, Retryable

__all__ = ["SlurmTool", "time_text"]


def time_text(time_s: float) -> str:
    """Write a time as scontrol takes it; SlurmTool runs everything in UTC, so no clock change can shift it."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class SlurmTool:
    """Slurm's commands, found on PATH; SLURM_CONF is taken from the environment."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def _run(
        self, command: Sequence[str], stdin: int | None = None, lines: int = 0
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                env=os.environ | {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"},
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=self._timeout_s + 0.05 * lines,
            )
        except FileNotFoundError:
            raise ConfigError(f"{command[0]}: not found on PATH: install Slurm's client commands") from None
        except subprocess.TimeoutExpired:
            raise Retryable(f"{command[0]}: no answer within {self._timeout_s:g} s") from None

    def ask(self, *command: str) -> str:
        """Return the output of a command; a failure means that Slurm's controller does not answer: Retryable."""
        done = self._run(command)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            raise Retryable(f"{' '.join(command)}: {lines[-1]}")
        return done.stdout

    def batch(self, lines: Sequence[str]) -> None:
        """Issue scontrol commands in order; which of them were refused shows when their effects are read back."""
        if not lines:
            return
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            file.seek(0)
            self._run(["scontrol"], file.fileno(), len(lines))

    def one(self, line: str) -> str:
        """Issue one scontrol command and return its error, "" where there is none."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            file.seek(0)
            done = self._run(["scontrol"], file.fileno())
        return " ".join(done.stderr.split()) if done.returncode else ""
