"""Metrics of the agent itself: the `agent` measurement."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from powerhall_agent.base.encoder import Series
from powerhall_agent.daemon.sampler_supervisor import SamplerSupervisor
from powerhall_agent.delivery.pipeline import OutputPipeline

__all__ = ["SelfMetrics"]

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class SelfMetrics:
    """Encodes one `agent` point per call; rates are over the time since the call before."""

    def __init__(
        self, tags: dict[str, str], clock: Callable[[], float] = time.monotonic, proc: Path = Path("/proc")
    ) -> None:
        self._series = Series("agent", tags)
        self._clock, self._proc = clock, proc
        self._cpu: dict[int, float] = {}
        self._at_s = clock()

    def encode(self, pipelines: Sequence[OutputPipeline], supervisor: SamplerSupervisor, time_ms: int) -> bytes:
        """Return the line of this moment."""
        return self._series.encode(self.values(pipelines, supervisor, time_ms), time_ms)

    def values(
        self, pipelines: Sequence[OutputPipeline], supervisor: SamplerSupervisor, time_ms: int
    ) -> dict[str, float]:
        """Measure CPU and memory of both processes and sum the counters of all outputs."""
        pids = [os.getpid(), *([supervisor.pid] if supervisor.pid is not None else [])]
        stats = [pipeline.spool.stats() for pipeline in pipelines]
        newest = [pipeline.shipper.stats.newest_ms for pipeline in pipelines]
        values = {
            "cpu_percent": self._cpu_percent(pids),
            "rss_bytes": float(sum(self._rss_bytes(pid) for pid in pids)),
            "spool_bytes": float(sum(entry.bytes_waiting for entry in stats)),
            "spool_points": float(sum(entry.points_waiting for entry in stats)),
            "dropped_points": float(sum(entry.dropped_points for entry in stats)),
            "rejected_points": float(sum(pipeline.dead_letters.points for pipeline in pipelines)),
            "sent_points": float(sum(pipeline.shipper.stats.sent_points for pipeline in pipelines)),
            "retries": float(sum(pipeline.shipper.stats.retries for pipeline in pipelines)),
            "foreign_answers": float(sum(pipeline.shipper.stats.foreign_answers for pipeline in pipelines)),
            "driver_stuck": 1.0 if supervisor.stuck else 0.0,
            "sampler_restarts": float(supervisor.restarts),
        }
        if newest and all(newest):
            values["lag_s"] = max(0.0, (time_ms - min(newest)) / 1000)
        return values

    def _cpu_percent(self, pids: list[int]) -> float:
        now_s, cpu = self._clock(), {pid: self._cpu_s(pid) for pid in pids}
        used_s = sum(spent - self._cpu.get(pid, 0.0) for pid, spent in cpu.items())
        passed_s, self._at_s, self._cpu = max(now_s - self._at_s, 1e-3), now_s, cpu
        return round(100.0 * used_s / passed_s, 3)

    def _cpu_s(self, pid: int) -> float:
        """Return user and system time of a process (fields 14 and 15 of /proc/PID/stat)."""
        try:
            words = (self._proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return 0.0
        return (int(words[11]) + int(words[12])) * _TICK_S

    def _rss_bytes(self, pid: int) -> int:
        try:
            return int((self._proc / str(pid) / "statm").read_bytes().split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):
            return 0
