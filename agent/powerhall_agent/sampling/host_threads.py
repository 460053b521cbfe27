"""Readings of the host beside the GPUs, each in a thread of its own: a slow BMC costs nobody a tick."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_agent.base.encoder import Fields, Record
from powerhall_agent.collectors.base import Collector
from powerhall_agent.sampling.collector_stats import FamilyStats

__all__ = ["HostThread", "collect_into", "observe_into"]

_log = Log(quiet=True)


class HostThread:
    """Runs something again and again in a thread, with a pause between."""

    def __init__(self, name: str, run: Callable[[], None], interval_s: float) -> None:
        """Start the thread; `run` must not raise."""
        self._run, self._interval_s = run, interval_s
        self._stop = threading.Event()
        threading.Thread(target=self._loop, name=name, daemon=True).start()

    def _loop(self) -> None:
        while True:
            self._run()
            if self._stop.wait(self._interval_s):
                return

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        self._stop.set()


def collect_into(ready: deque[Fields], family: FamilyStats, collector: Collector) -> Callable[[], None]:
    """Return a run that puts what a collector reads into `ready`, where it waits for a tick's timestamp."""

    def run() -> None:
        fields = family.run(collector)
        if fields:
            ready.append(fields)

    return run


def observe_into(ready: deque[Record], look: Callable[[float], Sequence[Record]]) -> Callable[[], None]:
    """Return a run that puts the points of a look for jobs into `ready`; a repeated failure is logged once."""
    logged: list[str] = []

    def run() -> None:
        try:
            ready.extend(look(time.time()))
        except (OSError, PowerhallError, ValueError) as error:
            if logged != [str(error)]:
                logged[:] = [str(error)]
                _log.warning("attribution_failed", detail=error)

    return run
