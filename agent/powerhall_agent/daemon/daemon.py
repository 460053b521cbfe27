"""The daemon: one loop that moves lines from the sampler into the spools and supervises both.

Threads and processes: this loop; one thread per output (pipeline.py); one sampler process (sampler_supervisor.py);
one more thread for the Prometheus endpoint, where there is one. Nothing in the loop waits for the driver or a store.
"""

import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall.runtime.signals import ServiceSignals
from powerhall.store.line_protocol import parse_lines
from powerhall_agent.base.clock import CLOCK_STEPPED, MOST_AHEAD_MS, SOFTWARE_MS, ClockStep, Stamper
from powerhall_agent.base.encoder import Series
from powerhall_agent.base.heap import trim_heap
from powerhall_agent.base.systemd import Notifier
from powerhall_agent.daemon.sampler_supervisor import SamplerSupervisor
from powerhall_agent.daemon.self_metrics import SelfMetrics
from powerhall_agent.delivery.pipeline import OutputPipeline, open_pipelines
from powerhall_agent.delivery.refused_series import newest_ms
from powerhall_agent.delivery.restamp import restamp
from powerhall_agent.settings.agent_settings import AgentSettings

if TYPE_CHECKING:
    from powerhall_agent.daemon.prometheus import Exposition

__all__ = ["Daemon", "run_daemon"]

_APPEND_EVERY_S = 0.5
"""Lines are spooled at most this often, so that the disk is synced at most twice a second."""
_POLL_S = 2.0
_GRAIN_S = 0.01
_SAMPLER_STOPS_S = 2.0
_FAR_MS = 1 << 62


class Daemon:
    """The daemon with one set of settings; a reload makes a new one."""

    def __init__(self, settings: AgentSettings, log: Log, notifier: Notifier) -> None:
        self.settings, self._log, self._notifier = settings, log, notifier
        sampler = settings.sampler
        self.tags = {"site": sampler.site, "hall": sampler.hall, "rack": sampler.rack, "node": sampler.node}
        self.pipelines: Sequence[OutputPipeline] = open_pipelines(settings, log)
        self.supervisor = SamplerSupervisor(sampler, settings.daemon.stuck_after_s, log)
        self._metrics = SelfMetrics(self.tags)
        self._exposition = _exposition(settings)
        self._events = Series("event", {**self.tags, "kind": "driver_stuck"})
        self._stamper = Stamper()
        self._waiting: list[bytes] = []
        self._appended_s = self._measured_s = self._alive_s = 0.0
        self._was_stuck = self._untold = False
        self._first_ms = self._last_ms = 0
        """The first and the newest timestamp of the sampler since the clock was set, or since the start."""
        self.sees_gpus = False
        """Whether a GPU has answered since the start."""

    def start(self) -> None:
        """Start the outputs, the sampler and the endpoint."""
        for pipeline in self.pipelines:
            pipeline.start()
        if self._exposition is not None:
            self._exposition.serve(self.settings.prometheus, self._log)
        self._measured_s = time.monotonic()
        self.supervisor.check()

    def cycle(self, wakeup: int) -> None:
        """Wait for lines or a signal, until something is due, and do it."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        out = self.supervisor.descriptor
        if out is not None:
            poll.register(out, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(1000 * self._pause_s())}
        if out in ready:
            self._take(self._from_sampler())
        now_s = time.monotonic()
        if now_s - self._appended_s >= _APPEND_EVERY_S:
            self._append(now_s)
        self.supervisor.check()
        self._report(now_s)
        for pipeline in self.pipelines:
            pipeline.shipper.enforce_deadline()
        if self._notifier.watchdog_s is not None and now_s - self._alive_s >= self._notifier.watchdog_s:
            self._alive_s = now_s
            self._notifier.alive()
        if self._untold:  # last, so that the shippers do not wake while this thread still works
            self._untold = False
            for pipeline in self.pipelines:
                pipeline.shipper.notify()

    def _pause_s(self) -> float:
        """Return how long to wait for lines or a signal until something is due."""
        pause_s = min(_POLL_S, self.supervisor.patience_s + _GRAIN_S)
        if self._notifier.watchdog_s is not None:
            pause_s = min(pause_s, self._alive_s + self._notifier.watchdog_s - time.monotonic())
        if self._waiting:
            pause_s = min(pause_s, self._appended_s + _APPEND_EVERY_S - time.monotonic())
        return max(0.0, pause_s)

    def stop(self) -> None:
        """End the sampler, spool its last lines and deliver the live ones, all within the deadline."""
        deadline_s = time.monotonic() + self.settings.daemon.stop_within_s
        self.supervisor.terminate()
        quiet_s = time.monotonic() + min(_SAMPLER_STOPS_S, self.settings.daemon.stop_within_s / 2)
        while self.supervisor.descriptor is not None and time.monotonic() < quiet_s:
            select.select([self.supervisor.descriptor], [], [], max(0.0, quiet_s - time.monotonic()))
            self._take(self._from_sampler())
        self.supervisor.kill()
        self._append(time.monotonic())
        for pipeline in self.pipelines:
            pipeline.stop(deadline_s)
        for pipeline in self.pipelines:
            pipeline.join(deadline_s - time.monotonic())
        if self._exposition is not None:
            self._exposition.close()

    def _from_sampler(self) -> bytes:
        """Read lines; points of the daemon itself continue from their timestamps, which always rise."""
        lines = self.supervisor.read()
        if b"kind=clock_stepped" in lines:
            self._follow_clock(lines)
        newest = newest_ms(lines)
        self._first_ms = self._first_ms or newest
        self._last_ms = max(self._last_ms, newest)
        self._stamper.last_ms = max(self._stamper.last_ms, newest)
        if not self.sees_gpus and lines:
            self._look_for_gpus(lines)
        return lines

    def _follow_clock(self, lines: bytes) -> None:
        """Give what waits the time of a clock that was set, and take nothing of the old one along."""
        at = next(point for point in parse_lines(lines) if point.tags.get("kind") == CLOCK_STEPPED)
        step = ClockStep(round(1000 * float(at.fields["code"])), self._last_ms or self._stamper.last_ms)
        self._log.warning("clock_stepped", detail=at.fields.get("detail", ""))
        if step.by_ms and (step.old_is_wrong or not self._first_ms):
            change = restamp(step.by_ms, *self._wrong_times(step, at.time_ms))
            self._waiting = [change(waiting) for waiting in self._waiting]
            for pipeline in self.pipelines:
                pipeline.spool.change(change)
        self._first_ms, self._last_ms = at.time_ms, 0
        self._stamper = Stamper()
        for pipeline in self.pipelines:
            pipeline.shipper.stats.newest_ms = 0
        if self._exposition is not None:
            self._exposition.clear()

    def _wrong_times(self, step: ClockStep, now_ms: int) -> tuple[int, int]:
        """Return between which timestamps the clock was wrong.

        Of an earlier run it is not known when that began, but that what lies ahead of the clock is wrong.
        """
        if self._first_ms:
            return self._first_ms, self._last_ms
        return (now_ms + MOST_AHEAD_MS, _FAR_MS) if step.by_ms < 0 else (0, SOFTWARE_MS)

    def _look_for_gpus(self, lines: bytes) -> None:
        """Log once that GPUs are read, or why none can be."""
        for line in lines.splitlines():
            if line.startswith(b"gpu_state,") and b",up=1" in line:
                self.sees_gpus = True
                self._log.info("started", node=self.tags["node"], outputs=len(self.pipelines))
                return
            if line.startswith(b"event,") and b"kind=driver_missing" in line:
                detail = next(parse_lines(line)).fields.get("detail", "")
                self._log.warning("waiting_for_gpus", key="", detail=detail, tries="again, at most 30 s apart")

    def _take(self, lines: bytes) -> None:
        if lines:
            self._waiting.append(lines)
            if self._exposition is not None:
                self._exposition.update(lines)

    def _append(self, now_s: float) -> None:
        if self._waiting:
            lines = b"".join(self._waiting)
            self._waiting.clear()
            self._appended_s = now_s
            for pipeline in self.pipelines:
                pipeline.spool.append(lines)
            self._untold = True

    def _report(self, now_s: float) -> None:
        """Spool the metrics of the daemon when due, and at once when the driver gets stuck or answers again."""
        stuck = self.supervisor.stuck
        if stuck == self._was_stuck and now_s - self._measured_s < self.settings.daemon.metrics_s:
            return
        self._measured_s = now_s
        time_ms = self._stamper.stamp(time.monotonic_ns(), time.time_ns())
        lines = self._metrics.encode(self.pipelines, self.supervisor, time_ms)
        if stuck != self._was_stuck:
            detail = "the sampler does not answer: a driver call hangs" if stuck else "the sampler answers again"
            severity = 2.0 if stuck else 0.0
            lines += self._events.encode({"code": float(stuck), "detail": detail, "severity": severity}, time_ms)
            self._was_stuck = stuck
        self._take(lines)
        self._append(now_s)


def _exposition(settings: AgentSettings) -> "Exposition | None":
    """Make the endpoint if the settings ask for one; its HTTP server is not loaded otherwise."""
    if not settings.prometheus.listen:
        return None
    from powerhall_agent.daemon.prometheus import Exposition

    return Exposition(settings.prometheus.names)


def run_daemon(load: Callable[[], AgentSettings], log: Log, duration_s: float | None = None) -> int:
    """Run until SIGTERM or SIGINT (or for `duration_s`); SIGHUP calls `load` again and continues with its settings.

    Without a driver the daemon waits for one. A run of limited time in which no GPU answered returns 1.
    """
    notifier = Notifier()
    end_s = None if duration_s is None else time.monotonic() + duration_s
    daemon = Daemon(load(), log, notifier)
    with ServiceSignals(reload_on=(signal.SIGHUP,)) as signals:
        while True:
            fresh = None
            daemon.start()
            outputs, spool = len(daemon.pipelines), daemon.settings.spool.path
            log.info("starting", node=daemon.tags["node"], outputs=outputs, spool=spool)
            trim_heap()
            notifier.ready(f"{outputs} outputs, spool {spool}")
            try:
                fresh = _live(daemon, signals, load, log, end_s)
            finally:
                (notifier.stopping if fresh is None else notifier.reloading)()
                daemon.stop()
            if fresh is None:
                log.info(
                    "stopped",
                    waiting_points=sum(pipeline.spool.stats().points_waiting for pipeline in daemon.pipelines),
                )
                if end_s is not None and not signals.stopped and not daemon.sees_gpus:
                    log.error(
                        "no_gpus", detail=f"no GPU answered within {duration_s:g} s: run `powerhall-agent doctor`"
                    )
                    return 1
                return 0
            daemon = _successor(fresh, daemon.settings, log, notifier)


def _successor(fresh: AgentSettings, before: AgentSettings, log: Log, notifier: Notifier) -> Daemon:
    """Make the daemon of new settings; those that do not work (a folder, a port) leave the old ones in force."""
    try:
        return Daemon(fresh, log, notifier)
    except PowerhallError as error:
        log.warning("reload_refused", detail=error)
        return Daemon(before, log, notifier)


def _live(
    daemon: Daemon, signals: ServiceSignals, load: Callable[[], AgentSettings], log: Log, end_s: float | None
) -> AgentSettings | None:
    """Cycle until the end (None) or until a reload (its settings)."""
    while not signals.stopped and (end_s is None or time.monotonic() < end_s):
        daemon.cycle(signals.descriptor)
        signals.drain()
        if signals.reload:
            signals.reload = False
            try:
                return load()
            except PowerhallError as error:
                log.warning("reload_refused", detail=error)
    return None
