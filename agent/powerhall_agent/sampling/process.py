"""The sampler in a process of its own: settings come in on stdin as JSON, lines go out on stdout.

A driver call that never returns, or a library that no longer fits the driver, ends this process and not the daemon.
A line `#` is a heartbeat when there are no records. The process ends with the daemon: by SIGTERM, by the death signal
of its parent, or when its pipe is closed.
"""

import os
import select
import signal
import sys
import time
from collections import deque

import msgspec

from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.runtime.signals import StopFlag, end_with_parent
from powerhall_agent.base.encoder import Series
from powerhall_agent.base.heap import trim_heap
from powerhall_agent.sampling.exit_code import SamplerExit
from powerhall_agent.sampling.sampler import run_sampler
from powerhall_agent.settings.sampler_settings import SamplerSettings

__all__ = ["PipeSink", "main"]

_KEEP_BYTES = 1024 * 1024
_BEAT_S = 1.2
"""Longer than the usual pause between two blocks of lines, so that a heartbeat is rarely needed."""
_SLICE_S = 0.2
_LAST_WORDS_S = 1.0


class PipeSink:
    """Writes lines to a pipe without waiting for its reader; beyond a megabyte the oldest lines are dropped."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.closed = False
        self.dropped_points = 0
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._rest = b""
        self.beat_at_s = 0.0
        """When the next heartbeat is due, by the monotonic clock."""

    def write(self, lines: bytes) -> None:
        """Queue whole lines and write as much as the pipe takes."""
        self._waiting.append(lines)
        while sum(map(len, self._waiting)) > _KEEP_BYTES and len(self._waiting) > 1:
            self.dropped_points += self._waiting.popleft().count(b"\n")
        self._push()

    def beat(self) -> None:
        """Write the queued lines; send a heartbeat when nothing was written for a while."""
        if self._rest:
            self._push()
        elif time.monotonic() >= self.beat_at_s:
            self.write(b"#\n")

    def finish(self) -> None:
        """Write the remaining lines, for at most a second."""
        end_s = time.monotonic() + _LAST_WORDS_S
        while (self._rest or self._waiting) and not self.closed and time.monotonic() < end_s:
            self._push()
            if self._rest:
                time.sleep(0.01)

    def _push(self) -> None:
        while self._rest or self._waiting:
            data = self._rest or self._waiting.popleft()
            try:
                done = os.write(self._descriptor, data)
            except BlockingIOError:
                self._rest, self.beat_at_s = data, 0.0
                return
            except OSError:
                self.closed = True
                return
            self._rest = data[done:]
            self.beat_at_s = time.monotonic() + _BEAT_S


class _Stop:
    """Ends the sampler on SIGTERM or a closed pipe; sends heartbeats while it waits."""

    def __init__(self, sink: PipeSink, asked: StopFlag) -> None:
        self._sink, self._asked = sink, asked

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in slices; True when it is time to end."""
        now_s = time.monotonic()
        end_s = now_s + (timeout or 0.0)
        while not (self._asked.stopped or self._sink.closed):
            if now_s >= self._sink.beat_at_s:
                self._sink.beat()
            left_s = end_s - now_s
            if left_s <= 0:
                return False
            _pause(min(left_s, _SLICE_S))
            if left_s <= _SLICE_S:
                return self._asked.stopped or self._sink.closed
            now_s = time.monotonic()
        return True


def _pause(seconds: float) -> None:
    """Sleep; time.sleep costs a third less than select, but libfaketime breaks it."""
    try:
        time.sleep(seconds)
    except OSError:
        select.select([], [], [], seconds)


def _failure(settings: SamplerSettings, error: Exception) -> bytes:
    """Return the event of a sampler that ends by an exception."""
    tags = {"site": settings.site, "hall": settings.hall, "rack": settings.rack, "node": settings.node}
    detail = f"the sampler ends and is started again: {type(error).__name__}: {error}"
    fields: dict[str, float | str] = {"code": float(SamplerExit.FAILED), "detail": detail, "severity": 2.0}
    return Series("event", {**tags, "kind": "sampler_failed"}).encode(fields, time.time_ns() // 1_000_000)


def main() -> int:
    """Run until stopped; the exit code is the reason of the end."""
    parent = os.getppid()
    end_with_parent(signal.SIGTERM)
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=SamplerSettings)
    sink = PipeSink(sys.stdout.fileno())
    # Ctrl-C and SIGHUP reach the daemon too, which ends or restarts this process in order.
    with StopFlag((signal.SIGTERM,), ignore=(signal.SIGINT, signal.SIGHUP)) as asked:
        if os.getppid() != parent:
            return 0  # the daemon died before the death signal was set
        sink.beat()
        trim_heap()
        try:
            outcome = run_sampler(settings, sink, _Stop(sink, asked))
        except Rejected as error:
            Log().error("sampler_refused", detail=error)
            return int(SamplerExit.REFUSED)
        except Exception as error:  # noqa: BLE001 - the daemon starts a new sampler
            Log().exception("sampler_failed")
            sink.write(_failure(settings, error))
            sink.finish()
            return int(SamplerExit.FAILED)
        sink.finish()
        return int(outcome)


if __name__ == "__main__":
    # An ordinary exit would wait for threads that hang in the driver.
    code = main()
    sys.stderr.flush()
    os._exit(code)
