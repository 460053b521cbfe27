"""The sampler: owns NVML in its process, reads every GPU at its cadence and writes finished lines to a sink.

One thread keeps time and never enters the driver; driver calls run on the driver thread, and a call that blocks delays
its own GPU only. A driver that goes away is initialised again with backoff; an unbind or a library that does not fit
the driver ends `run_sampler`, because only a new process can let go of the library.
"""

import random
from collections import deque
from pathlib import Path
from typing import Final, Protocol

import pynvml

from powerhall.runtime.log import Log
from powerhall_agent.base.clock import CLOCK_STEPPED, Clock, ClockStep, Moment, Stamper, SystemClock, step_text
from powerhall_agent.base.encoder import Fields, Record, Series
from powerhall_agent.base.gpu_snapshot import GpuSnapshot
from powerhall_agent.base.sensor_log import SensorLog
from powerhall_agent.base.sink import Sink
from powerhall_agent.collectors.gpu_extra import read_extra_fields
from powerhall_agent.nvml.codes import UNKNOWN, Action, action
from powerhall_agent.nvml.operational_events import OPERATIONAL
from powerhall_agent.sampling.checkpoint import open_checkpoint
from powerhall_agent.sampling.collector_stats import CollectorStats
from powerhall_agent.sampling.driver_events import DriverEvent
from powerhall_agent.sampling.driver_session import DriverSession, boot_id, next_due
from powerhall_agent.sampling.driver_thread import DriverThread, Steps, Task
from powerhall_agent.sampling.event_log import EventLog
from powerhall_agent.sampling.exit_code import SamplerExit
from powerhall_agent.sampling.failure_log import FailureLog, encode_each
from powerhall_agent.sampling.gpu_health import HUNG, GpuHealth
from powerhall_agent.sampling.gpu_reader import IDENTITY, SLOW, GpuReader, ReaderContext, Tick
from powerhall_agent.sampling.host_threads import start_attribution, start_host_threads
from powerhall_agent.sampling.plausibility import NodePlausibility
from powerhall_agent.sampling.record_queue import RecordQueue
from powerhall_agent.sampling.sensor_file import SensorFile, SensorReport
from powerhall_agent.settings.sampler_settings import SamplerSettings

__all__ = ["Sampler", "run_sampler"]

_log = Log(quiet=True)
_DRIVER: Final = -1
_REPORT_S: Final = 10.0
_STUCK_NS: Final = 3_000_000_000
_STATES_NS: Final = 900_000_000
_REINIT_FIRST_S, _REINIT_LAST_S = 1.0, 30.0


class Stop(Protocol):
    """A stop flag, such as a `threading.Event`."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait; True when the sampler should end."""


class Sampler:
    """All GPUs of a node; `tick` is called at the fast interval."""

    def __init__(self, settings: SamplerSettings, sink: Sink, clock: Clock | None = None) -> None:
        """Prepare; the driver is opened by the first tick."""
        self.settings, self._sink = settings, sink
        self.clock = clock or SystemClock()
        self._checkpoint = open_checkpoint(settings.state_dir, settings.node)
        self._extra = read_extra_fields(Path(settings.extra_fields)) if settings.extra_fields else ()
        self._boot = boot_id()
        self.stamper = Stamper(self._checkpoint.last_ms(), self._checkpoint.last_mono_ns(self._boot))
        self.driver_thread = DriverThread(settings.slow_call_s)
        self.tags = {"site": settings.site, "hall": settings.hall, "rack": settings.rack, "node": settings.node}
        self.exit: SamplerExit | None = None
        self.ticks_missed = 0
        self.queue = RecordQueue()
        """Records from any thread."""
        self.events = EventLog(self.tags, self.queue)
        self.failed = FailureLog(self.events, self.clock, _log)
        self.stats = CollectorStats(failed=self.failed)
        self._tick = Tick()
        self.host: deque[Fields] = deque(maxlen=100)
        """Readings of the host from other threads; they get the next tick's timestamp."""
        self._session: DriverSession | None = None
        self._opened: DriverSession | None = None
        self._open_failed = self._missing_code = 0
        self._open_at_ns, self._reinit_s = 0, _REINIT_FIRST_S
        self._report_ns = self._full_ns = self._states_from_ns = 0
        self._was_stuck = False
        self.sensors = SensorLog()
        """Sensors of the host."""
        self._checks = NodePlausibility(self.sensors)
        self._sensor_report = SensorReport(self.tags, SensorFile(settings.state_dir, settings.node))
        self._own = {name: Series(name, self.tags) for name in ("node", "agent")}

    # Opening and closing a driver session.

    def open(self) -> None:
        """Open the driver on the calling thread; raises NVMLError when it is not there."""
        self._session = self._open()

    def _open(self) -> DriverSession:
        settings = self.settings
        context = ReaderContext(
            self.tags,
            self._checkpoint,
            self._boot,
            self.clock,
            self.stats,
            self.queue,
            self.events,
            self._tick,
            frozenset(settings.fields),
            settings.flight_recorder,
            settings.fast_interval_s,
            self._extra,
            settings.gpm,
        )
        return DriverSession(settings, context, self.clock.monotonic_ns())

    def _try_open(self) -> None:
        try:
            self._opened = self._open()
        except pynvml.NVMLError as error:
            self._open_failed = error.value
        except Exception as error:  # noqa: BLE001 - tried again with backoff, as after any failed opening
            self._open_failed = UNKNOWN
            self.failed("driver", error)

    def _opening(self, moment: Moment) -> Steps:
        """Open the driver with backoff."""
        may_try = moment.mono_ns >= self._open_at_ns and self.driver_thread.blocked_since_ns(_DRIVER) is None
        if self._opened is None and not self._open_failed and may_try:
            yield [Task(_DRIVER, self._try_open)]
        if self._opened is not None:
            self._session, self._opened = self._opened, None
            self._reinit_s, self._missing_code = _REINIT_FIRST_S, 0
        elif self._open_failed:
            code, self._open_failed = self._open_failed, 0
            self._retry_later(moment, code)
            self._reinit_s = min(_REINIT_LAST_S, self._reinit_s * 2)
            if code != self._missing_code:
                self._missing_code = code
                self._event(DriverEvent("driver_missing", None, code, f"no NVML: {pynvml.NVMLError(code)}", 2), moment)

    def _retry_later(self, moment: Moment, code: int) -> None:
        if action(code) is Action.RESPAWN:
            self.exit = SamplerExit.MISMATCH
        self._open_at_ns = moment.mono_ns + int(self._reinit_s * 1e9)

    def close(self) -> None:
        """Free the driver's resources, on the calling thread."""
        self.driver_thread.run_here(self.closing())

    def closing(self) -> Steps:
        """Free the driver's resources, and write the remaining records."""
        session, self._session = self._session, None
        if session is not None:
            for reader in session.readers:
                if self.driver_thread.blocked_since_ns(reader.gpu.index) is None:
                    reader.drain_fast()
            session.watch.close()
            self._handle_events(session, self._tick.moment)  # those that came while the session ended
            yield [Task(_DRIVER, session.free)]
        self._flush()

    # One tick.

    def tick(self, moment: Moment | None = None) -> None:
        """Take one tick on the calling thread, without protection from calls that hang: for simulated time."""
        self.driver_thread.run_here(self.steps(moment or self.stamper.moment(self.clock)))

    def steps(self, moment: Moment) -> Steps:
        """Take one tick: yield the due driver calls; write the queue once a full set is complete."""
        full = moment.mono_ns >= self._full_ns
        self._tick.moment = moment
        step = self.stamper.take_step()
        if step is not None:
            self._follow(step, moment)
        if self._session is None:
            yield from self._opening(moment)
        session = self._session
        if session is not None:
            if moment.mono_ns < session.quiet_until_ns and session.watch.events.empty():
                yield session.full_tasks if full else session.fast_tasks
                if not full and not self.queue.urgent and not self.driver_thread.blocked:
                    return  # most ticks end here
            else:
                yield from self._read(session, moment, full=full)
            yield from self._check_gpus(session, moment, full=full)
        self._write(moment, full=full)

    def _follow(self, step: ClockStep, moment: Moment) -> None:
        """Follow a step of the wall clock: what is still here gets the right time, and an event tells of the step."""
        if step.old_is_wrong:
            self.queue.shift(step.by_ms)
            for reader in self._readers():
                if self.driver_thread.blocked_since_ns(reader.gpu.index) is None:
                    reader.fast.shift(step.by_ms)
        self.events.begin_anew()
        self.events.put(CLOCK_STEPPED, step.by_ms / 1000.0, step_text(step, moment.ms), 1, moment.ms)

    def _read(self, session: DriverSession, moment: Moment, *, full: bool) -> Steps:
        """Handle the driver's events, and take the due readings."""
        self._handle_events(session, moment)
        tasks = session.tasks(moment, full=full)
        if tasks:
            yield tasks
        session.adopt()
        session.rest()

    def _check_gpus(self, session: DriverSession, moment: Moment, *, full: bool) -> Steps:
        """Write changes of the GPUs' state; close the session of a driver that is gone."""
        if self.driver_thread.blocked:
            self._flag_hung(session, moment)
        if self.driver_thread.failures:
            self._note_failures(session, moment)
        for reader in session.readers:
            if reader.health.reason != reader.reported_reason:
                reader.reported_reason = reader.health.reason
                self._state(session, reader.gpu.index, reader.health, moment)
                self.queue.urgent = True
                session.quiet_until_ns = 0
            if full and not reader.health.up and self.driver_thread.blocked_since_ns(reader.gpu.index) is None:
                reader.drain_fast()  # ship the samples recorded before the GPU was lost
        code = session.dead_code()
        if code:
            self._event(DriverEvent("driver_gone", None, code, f"driver gone: {pynvml.NVMLError(code)}", 2), moment)
            self._retry_later(moment, code)
            yield from self.closing()

    def _write(self, moment: Moment, *, full: bool) -> None:
        """Add the metrics of the sampler, and write the queue when it is due or urgent."""
        if full:
            self._full_ns = next_due(self._full_ns, moment.mono_ns, self.settings.interval_s)
            self._node(moment)
            self._checkpoint.keep_ms(max(moment.ms, self.events.last_ms), moment.mono_ns, self._boot)
        stuck = self.driver_stuck(moment)
        if moment.mono_ns >= self._report_ns or stuck != self._was_stuck:
            self.queue.urgent = self.queue.urgent or stuck != self._was_stuck
            self._was_stuck = stuck
            self._report_ns = next_due(self._report_ns, moment.mono_ns, _REPORT_S)
            self._report(moment)
        while self.host:
            self.queue.put(Record(self._own["node"], self._checks.sift(self.host.popleft()), moment.ms))
        for event in self.sensors.take_events():
            self.events.put(event.kind, event.code, event.detail, event.severity, moment.ms)
        if full or self.queue.urgent:
            self._flush()

    def _note_failures(self, session: DriverSession, moment: Moment) -> None:
        """Count an exception that is no return code of the driver as an unknown error of its GPU."""
        while self.driver_thread.failures:
            owner, error = self.driver_thread.failures.popleft()
            reader = next((reader for reader in session.readers if reader.gpu.index == owner), None)
            self.failed("reader", error, None if owner == _DRIVER else owner)
            if reader is not None and reader.health.fault(UNKNOWN, moment.mono_ns):
                reader.event("gpu_quarantined", UNKNOWN, f"{reader.health.reason}: {error}", 2, moment.ms)

    def _flag_hung(self, session: DriverSession, moment: Moment) -> None:
        hung_ns = int(self.settings.hung_call_s * 1e9)
        for reader in session.readers:
            since_ns = self.driver_thread.blocked_since_ns(reader.gpu.index)
            if since_ns is None or reader.health.reason == HUNG:
                continue
            if self.clock.monotonic_ns() - since_ns >= hung_ns and reader.health.quarantine(HUNG, moment.mono_ns):
                reader.event("gpu_quarantined", 0, "hung: a driver call does not return", 2, moment.ms)
                reader.fast.record(moment.ms)

    def _handle_events(self, session: DriverSession, moment: Moment) -> None:
        while not session.watch.events.empty():
            self._handle(session, session.watch.events.get(), moment)

    def _handle(self, session: DriverSession, event: DriverEvent, moment: Moment) -> None:
        reader = next((reader for reader in session.readers if reader.gpu.index == event.gpu), None)
        if reader is None:
            self._event(event, moment)
        else:
            if event.kind != OPERATIONAL or event.severity:
                reader.fast.record(moment.ms)
            reader.event(event.kind, event.code, event.detail, event.severity, moment.ms)
            if event.kind == "mig_change":
                reader.rebind_mig = True
                session.hurry(reader, moment, SLOW, IDENTITY)
        if event.kind == "driver_unbind":
            self.exit = SamplerExit.UNBIND

    # Metrics of the sampler and the node.

    def _event(self, event: DriverEvent, moment: Moment) -> None:
        self.events.put(event.kind, event.code, event.detail, event.severity, moment.ms, event.gpu)

    def _state(self, session: DriverSession, index: int, health: GpuHealth, moment: Moment) -> None:
        fields: dict[str, float | str] = {"up": 1.0 if health.up else 0.0, "reason": health.reason}
        fields["call_latency_s"] = round(self.driver_thread.slowest_ns.pop(index, 0) / 1e9, 6)
        self.queue.put(Record(session.series(index), fields, moment.ms))

    def _node(self, moment: Moment) -> None:
        """Write the sum of the GPUs, and about once a second, however short the interval is, the state of each."""
        session = self._session
        readers = session.readers if session else []
        missing = session.missing if session else {}
        if session is not None and moment.mono_ns >= self._states_from_ns:
            self._states_from_ns = moment.mono_ns + _STATES_NS
            for index, health in [*((reader.gpu.index, reader.health) for reader in readers), *missing.items()]:
                self._state(session, index, health, moment)
        up = [reader for reader in readers if reader.health.up]
        fields = {"gpus": float(len(readers) + len(missing)), "gpus_up": float(len(up))}
        powers = [reader.fast.power_w for reader in up if reader.fast.power_w is not None]
        if powers and not any(reader.fast.has_lost_power for reader in up):
            fields["gpu_power_w"] = round(sum(powers), 3)
            self._checks.note_gpus(moment.mono_ns, sum(powers))
        told = up and all(reader.checks.knows_limit for reader in up)
        self._checks.gpus_most_w = sum(reader.checks.most_w for reader in up) if told else 0.0
        self.queue.put(Record(self._own["node"], fields, moment.ms))

    def _report(self, moment: Moment) -> None:
        for name, family in self.stats.by_name.items():
            if family.runs:
                series = Series("collector", {**self.tags, "collector": name})
                self.queue.put(Record(series, family.report(), moment.ms))
        self._report_field_times(moment)
        logs = [("", self.sensors), *((str(reader.gpu.index), reader.sensors) for reader in self._readers())]
        self._sensor_report.write(logs, self.queue, moment.ms)
        fields = {
            "ticks_missed": float(self.ticks_missed),
            "driver_time_s": round(self.driver_thread.busy_ns / 1e9, 6),
            "driver_stuck": 1.0 if self._was_stuck else 0.0,
        }
        self.queue.put(Record(self._own["agent"], fields, moment.ms))

    def _report_field_times(self, moment: Moment) -> None:
        """Write the driver time of each reading on its slowest GPU, where it was just measured."""
        slowest_s: dict[str, float] = {}
        for reader in self._readers():
            times_s, reader.field_times_s = reader.field_times_s, {}
            for name, seconds in times_s.items():
                slowest_s[name] = max(seconds, slowest_s.get(name, 0.0))
        for name, seconds in slowest_s.items():
            series = Series("collector", {**self.tags, "collector": f"field:{name}"})
            self.queue.put(Record(series, {"success": 1.0, "duration_s": round(seconds, 9)}, moment.ms))

    def driver_stuck(self, moment: Moment) -> bool:
        """Return whether no GPU has answered for three seconds because driver calls do not return."""
        if not self.driver_thread.blocked:
            return False
        missing = [] if self._session is None else [*self._session.missing]
        owners = [reader.gpu.index for reader in self._readers()] or missing or [_DRIVER]
        since = [self.driver_thread.blocked_since_ns(owner) for owner in owners]
        return all(begun is not None and moment.mono_ns - begun >= _STUCK_NS for begun in since)

    def gpus(self) -> dict[int, GpuSnapshot]:
        """Return the GPUs that answer, for job attribution."""
        return {reader.gpu.index: reader.now for reader in self._readers() if reader.health.up}

    def _readers(self) -> list[GpuReader]:
        return [] if self._session is None else self._session.readers

    def _flush(self) -> None:
        records = self.queue.take()
        if records:
            self._sink.write(encode_each(records, self.failed))


def run_sampler(settings: SamplerSettings, sink: Sink, stop: Stop, clock: Clock | None = None) -> SamplerExit:
    """Sample until `stop` is set or the process must be replaced; lines go to the sink from the calling thread.

    With `settings.simulate` the driver is replaced by simulated GPUs first; bad settings raise Rejected.
    """
    if settings.simulate is not None:
        from powerhall_agent.simulate.setup import start_simulation

        start_simulation(settings.simulate, settings.node)
    sampler = Sampler(settings, sink, clock)
    threads = start_host_threads(settings, sampler.host, sampler.stats, sampler.sensors, sampler.failed)
    threads += start_attribution(settings, sampler.tags, sampler.gpus, sampler.queue.records, sampler.failed)
    try:
        sampler.driver_thread.run(_ticks(sampler, stop))
    finally:
        for thread in threads:
            thread.close()
    return sampler.exit or SamplerExit.STOPPED


def _ticks(sampler: Sampler, stop: Stop) -> Steps:
    """Take a tick at every fast interval, shifted by the jitter, until stopped; then free the driver."""
    settings, clock = sampler.settings, sampler.clock
    period_ns = int(settings.fast_interval_s * 1e9)
    rng = random.Random(settings.node)  # noqa: S311  # phase jitter, nothing secret
    due_ns = clock.monotonic_ns()
    while sampler.exit is None:
        jitter_ns = int(rng.random() * settings.jitter * period_ns)
        if stop.wait(max(0.0, (due_ns + jitter_ns - clock.monotonic_ns()) / 1e9)):
            break
        yield from sampler.steps(sampler.stamper.moment(clock))
        due_ns += period_ns
        late = (clock.monotonic_ns() - due_ns) // period_ns
        if late > 0:
            sampler.ticks_missed += late
            due_ns += late * period_ns
    yield from sampler.closing()
