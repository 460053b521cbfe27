"""Supervises the sampler process: starts it, reads its lines, and detects that it is silent or gone.

Invariants: at most one sampler of this daemon exists, also when one cannot be killed (a process in an uninterruptible
driver call): nothing is started before the old one has been reaped. No call here waits for the sampler.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from powerhall.runtime.errors import ConfigError
from powerhall.runtime.log import Log
from powerhall_agent.sampling.exit_code import SamplerExit
from powerhall_agent.settings.sampler_settings import SamplerSettings

__all__ = ["SamplerSupervisor"]

_FIRST_WORD_S = 20.0
"""Silence that is normal while Python and the driver start."""
_KILL_AFTER_S = 30.0
_LAST_WORDS_S = 2.0
"""How long the pipe of a dead sampler is read (a program that it started may keep it open)."""
_BACKOFF_S, _BACKOFF_MAX_S, _WELL_S = 0.5, 30.0, 60.0
_PAUSES_S: dict[int, float] = {SamplerExit.MISMATCH: 0.0, SamplerExit.UNBIND: 5.0}
"""Before the next start, by the exit code of a sampler that ended on purpose."""
_READ_BYTES = 1 << 16
"""The capacity of a pipe. A larger buffer would be mapped and unmapped by the C library at every read."""


class SamplerSupervisor:
    """One sampler, restarted with growing pauses when it dies."""

    def __init__(
        self,
        settings: SamplerSettings,
        stuck_after_s: float,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        command: tuple[str, ...] = (sys.executable, "-m", "powerhall_agent.sampling.process"),
    ) -> None:
        self.restarts = 0
        self.stuck = False
        self._settings, self._stuck_after_s, self._log, self._clock = settings, stuck_after_s, log, clock
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._heard_s = self._started_s = self._start_at_s = clock()
        self._spoke = self._killed = False
        self._pause_s = _BACKOFF_S

    @property
    def pid(self) -> int | None:
        """Process id while one runs."""
        return self._process.pid if self._process is not None else None

    @property
    def descriptor(self) -> int | None:
        """The descriptor to poll for lines."""
        out = self._process.stdout if self._process is not None else None
        return out.fileno() if out is not None and not out.closed else None

    @property
    def patience_s(self) -> float:
        """Seconds until the silence of the sampler has a consequence."""
        if self._process is None:
            return max(0.0, self._start_at_s - self._clock())
        limit_s = self._limit_s() + (_KILL_AFTER_S if self.stuck else 0.0)
        return max(0.0, self._heard_s + limit_s - self._clock())

    def _limit_s(self) -> float:
        return self._stuck_after_s if self._spoke else max(_FIRST_WORD_S, self._stuck_after_s)

    def check(self) -> None:
        """Start, restart or kill the sampler when due; call it about once a second."""
        now_s = self._clock()
        if self._process is None:
            if now_s >= self._start_at_s:
                self._start(now_s)
            return
        code, silent_s = self._process.poll(), now_s - self._heard_s
        if code is not None and (self.descriptor is None or silent_s > _LAST_WORDS_S):
            self._ended(code, now_s)
            return
        limit_s = self._limit_s()
        if silent_s > limit_s and not self.stuck:
            self.stuck = True
            self._log.warning("driver_stuck", key="", pid=self.pid, silent_s=silent_s)
        if silent_s > limit_s + _KILL_AFTER_S and not self._killed:
            self._killed = True
            self._log.warning("sampler_killed", key="", pid=self.pid, silent_s=silent_s)
            self._process.kill()

    def read(self) -> bytes:
        """Return the complete lines that have arrived; b"" also at the end of the pipe."""
        descriptor = self.descriptor
        if descriptor is None or self._process is None or self._process.stdout is None:
            return b""
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            self._process.stdout.close()
            self._rest = b""  # a line that the sampler did not finish
            return b""
        self._heard_s, self._spoke = self._clock(), True
        if self.stuck and not self._killed:
            self.stuck = False
            self._log.info("driver_answers_again", pid=self.pid)
        lines, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest
        return _without_beats(lines + newline)

    def terminate(self) -> None:
        """Send SIGTERM to the sampler."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill the sampler; one that hangs in the driver is left to the kernel."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _start(self, now_s: float) -> None:
        try:
            process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            self._log.warning("sampler_not_started", key="", detail=error.strerror)
            self._start_at_s = now_s + self._next_pause()
            return
        assert process.stdin is not None
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        try:
            process.stdin.write(msgspec.json.encode(self._settings))
            process.stdin.close()
        except OSError:
            self._log.warning("sampler_closed_stdin", key="", pid=process.pid)
        self._process, self._spoke, self._killed = process, False, False
        self._heard_s = self._started_s = now_s
        self._log.info("sampler_started", pid=process.pid)

    def _ended(self, code: int, now_s: float) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._process, self._rest, self.stuck = None, b"", False
        if code == SamplerExit.REFUSED:
            raise ConfigError("the sampler refused its settings; its line above says why")
        self.restarts += 1
        if now_s - self._started_s > _WELL_S:
            self._pause_s = _BACKOFF_S
        pause_s = _PAUSES_S.get(code)
        self._start_at_s = now_s + (self._next_pause() if pause_s is None else pause_s)
        self._log.warning("sampler_ended", key=str(code), exit_code=code, starts_again_in_s=self._start_at_s - now_s)

    def _next_pause(self) -> float:
        pause_s = self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        self._pause_s = min(2 * self._pause_s, _BACKOFF_MAX_S)
        return pause_s


def _without_beats(lines: bytes) -> bytes:
    if b"#" not in lines:
        return lines
    return b"".join(line for line in lines.splitlines(keepends=True) if not line.startswith(b"#"))
