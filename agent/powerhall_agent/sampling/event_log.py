"""Events of a sampler, each with a timestamp of its own, so that no store puts one in the place of another.

Stores keep one point per series and millisecond, and an event's series is its GPU and kind. A double-bit error is a
burst of XIDs (48, 63, 94, 45) within one tick, and the cause comes first.
"""

import threading
from collections.abc import Mapping

from powerhall_agent.base.encoder import Record, Series
from powerhall_agent.sampling.record_queue import RecordQueue

__all__ = ["EventLog"]


class EventLog:
    """Queues events from any thread; those of one moment are a millisecond apart, in the order in which they came."""

    def __init__(self, tags: Mapping[str, str], queue: RecordQueue) -> None:
        """Put events with these tags into the queue."""
        self._tags, self._queue = dict(tags), queue
        self._newest: dict[tuple[int | None, str], int] = {}
        self._moment_ms = 0
        self.last_ms = 0
        """The timestamp of the newest event."""
        self._lock = threading.Lock()

    def put(  # noqa: PLR0917 - the six parts of an event
        self, kind: str, code: float, detail: str, severity: int, time_ms: int, gpu: int | None = None
    ) -> None:
        """Queue an event of a GPU, or of the driver or the host; `severity` is 0 information, 1 warning, 2 critical."""
        series = Series("event", {**self._tags, "gpu": "" if gpu is None else str(gpu), "kind": kind})
        fields: dict[str, float | str] = {"code": float(code), "detail": detail, "severity": float(severity)}
        with self._lock:
            self._queue.put(Record(series, fields, self._stamp((gpu, kind), time_ms)), urgent=True)

    def begin_anew(self) -> None:
        """Forget the timestamps of earlier events: the wall clock was set."""
        with self._lock:
            self._newest.clear()
            self._moment_ms = self.last_ms = 0

    def _stamp(self, key: tuple[int | None, str], time_ms: int) -> int:
        """Return a time that no event of this series has; events of the present also follow each other.

        An event that was found later (a power step within the last second) keeps its own time as far as it is free.
        """
        stamp_ms = max(time_ms, self._newest.get(key, 0) + 1)
        if time_ms >= self._moment_ms:
            stamp_ms = max(stamp_ms, self.last_ms + 1)
            self._moment_ms = time_ms
        self._newest[key] = stamp_ms
        self.last_ms = max(self.last_ms, stamp_ms)
        return stamp_ms
