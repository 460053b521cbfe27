"""Run Slurm's commands; scontrol reads writes from a complete file, so that none is truncated."""

import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime

from powerhall.runtime.decode.command_output import CommandOutput, command_output
from powerhall.runtime.errors import ConfigError, Retryable

__all__ = ["SlurmTool", "time_text"]

_OPTIONS = ("SQUEUE_", "SINFO_", "SCONTROL_", "SLURM_CLUSTERS", "SLURM_JSON", "SLURM_YAML")
"""Variables by which users choose what Slurm's commands show: some jobs, nodes or clusters alone, or another format."""


def time_text(time_s: float) -> str:
    """Write a time as scontrol takes it; SlurmTool runs everything in UTC, so no clock change can shift it."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class SlurmTool:
    """Slurm's commands, found on PATH; SLURM_CONF is taken from the environment, users' filters are not."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def _run(self, command: Sequence[str], stdin: int | None = None, lines: int = 0) -> CommandOutput:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OPTIONS)}
        environment |= {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}  # 0: arrays in full
        try:
            return command_output(command, self._timeout_s + 0.05 * lines, stdin=stdin, environment=environment)
        except FileNotFoundError:
            raise ConfigError(f"{command[0]}: not found on PATH: install Slurm's client commands") from None

    def ask(self, *command: str) -> str:
        """Return the output of a command; a failure means that Slurm's controller does not answer: Retryable.

        Users write comments and names of jobs: bytes that are no UTF-8 are replaced.
        """
        done = self._run(command)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            raise Retryable(f"{' '.join(command)}: {lines[-1]}")
        return done.stdout.decode("utf-8", "replace")

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
