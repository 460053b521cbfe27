"""Readings of the host, each in a thread of its own, so that a slow BMC delays no GPU."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_agent.base.encoder import Fields, Record
from powerhall_agent.base.gpu_snapshot import GpuSnapshot
from powerhall_agent.base.sensor_log import SensorLog
from powerhall_agent.collectors import HOST_COLLECTORS, Collector
from powerhall_agent.sampling.collector_stats import CollectorStats, FamilyStats
from powerhall_agent.sampling.driver_session import boot_id
from powerhall_agent.settings.sampler_settings import SamplerSettings

__all__ = ["HostThread", "collect_into", "observe_into", "start_attribution", "start_host_threads"]

_log = Log(quiet=True)


class HostThread:
    """Runs a function at an interval in a thread."""

    def __init__(
        self, name: str, run: Callable[[], None], interval_s: float, failed: Callable[[str, Exception], None]
    ) -> None:
        """Start the thread; an exception of `run` is handed to `failed`, and the next run comes as usual."""
        self._name, self._run, self._interval_s, self._failed = name, run, interval_s, failed
        self._stop = threading.Event()
        threading.Thread(target=self._loop, name=name, daemon=True).start()

    def _loop(self) -> None:
        while True:
            try:
                self._run()
            except Exception as error:  # noqa: BLE001 - one reading of the host; the others go on
                self._failed(self._name, error)
            if self._stop.wait(self._interval_s):
                return

    def close(self) -> None:
        """End the thread after the current run."""
        self._stop.set()


def collect_into(ready: deque[Fields], family: FamilyStats, collector: Collector) -> Callable[[], None]:
    """Return a function that puts a collector's readings into `ready`, where they wait for a tick's timestamp."""

    def run() -> None:
        fields = family.run(collector)
        if fields:
            ready.append(fields)

    return run


def observe_into(ready: deque[Record], look: Callable[[float], Sequence[Record]]) -> Callable[[], None]:
    """Return a function that puts the points of job attribution into `ready`; a repeated failure is logged once."""
    logged: list[str] = []

    def run() -> None:
        try:
            ready.extend(look(time.time()))
        except (OSError, PowerhallError, ValueError) as error:
            if logged != [str(error)]:
                logged[:] = [str(error)]
                _log.warning("attribution_failed", detail=error)

    return run


def start_host_threads(
    settings: SamplerSettings,
    ready: deque[Fields],
    stats: CollectorStats,
    sensors: SensorLog,
    failed: Callable[[str, Exception], None],
) -> list[HostThread]:
    """Start a thread for each collector of the host that the settings ask for."""
    threads = []
    for entry in HOST_COLLECTORS:
        collector = entry.make(settings, sensors)
        if collector is not None:
            run = collect_into(ready, stats.family(entry.name), collector)
            threads.append(HostThread(f"host-{entry.name}", run, entry.interval_s(settings), failed))
    return threads


def start_attribution(
    settings: SamplerSettings,
    tags: Mapping[str, str],
    gpus: Callable[[], dict[int, GpuSnapshot]],
    ready: deque[Record],
    failed: Callable[[str, Exception], None],
) -> list[HostThread]:
    """Start the thread that looks for the jobs on the GPUs, where the settings ask for it."""
    if not settings.attribution:
        return []
    from powerhall_agent.attribution.collect import Attribution, user_hasher
    from powerhall_agent.attribution.host import HostJobs
    from powerhall_agent.attribution.kept_jobs import KeptJobs

    reports = Path(settings.progress_dir) if settings.progress_dir else None
    kept = KeptJobs(Path(settings.state_dir), settings.node, boot_id()) if settings.state_dir else None
    jobs = Attribution(tags, HostJobs(user_hasher(settings.user_hash_salt_file)), gpus, reports=reports, kept=kept)
    return [HostThread("host-jobs", observe_into(ready, jobs.observe), settings.slow_interval_s / 2, failed)]
