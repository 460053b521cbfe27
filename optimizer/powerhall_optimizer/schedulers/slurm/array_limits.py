"""The `%N` limits of job arrays as earliest starts: a task waits until one of the N before it may have ended."""

from heapq import heapify, heapreplace

from powerhall_optimizer.schedulers.slurm.records import Record

__all__ = ["ArrayLimits"]


class ArrayLimits:
    """For each array with a limit the times in s at which its N places become free."""

    def __init__(self, now_s: float) -> None:
        self._now_s = now_s
        self._free_s: dict[int, list[float]] = {}

    def runs(self, record: Record, duration_s: float) -> None:
        """Count a task that has nodes; count them all before the first that waits."""
        if record.array_id and record.array_limit:
            self._free_s.setdefault(record.array_id, []).append(self._now_s + duration_s)

    def earliest_s(self, record: Record, duration_s: float) -> float | None:
        """Return when a waiting task may start at the earliest, and count it from then on; None for at once."""
        if not (record.array_id and record.array_limit):
            return None
        free_s = self._free_s.setdefault(record.array_id, [])
        while len(free_s) < record.array_limit:
            free_s.append(self._now_s)
        heapify(free_s)
        start_s = free_s[0]
        heapreplace(free_s, start_s + duration_s)
        return start_s if start_s > self._now_s else None
