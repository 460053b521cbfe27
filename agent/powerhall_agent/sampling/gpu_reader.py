"""One GPU between binding and unbinding: its collectors, interval statistics, energy, flight recorder and health."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pynvml

from powerhall_agent.base.clock import Clock, Moment
from powerhall_agent.base.encoder import Fields, Record, Series
from powerhall_agent.base.gpu_snapshot import GpuSnapshot
from powerhall_agent.base.sensor_log import IN_A_ROW, SensorLog
from powerhall_agent.collectors import GPU_COLLECTORS
from powerhall_agent.collectors.gpu import GpuFull
from powerhall_agent.collectors.gpu_extra import ExtraField, GpuExtra
from powerhall_agent.collectors.gpu_fast import FastSample, GpuFast
from powerhall_agent.collectors.gpu_gpm import GpuGpm
from powerhall_agent.collectors.gpu_mig import MigInstance, instances_of
from powerhall_agent.collectors.gpu_slow import GpuSlow
from powerhall_agent.nvml.codes import Action, action
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.sampling.checkpoint import Checkpoint, Totals
from powerhall_agent.sampling.collector_stats import CollectorStats
from powerhall_agent.sampling.energy import EnergyAccumulator
from powerhall_agent.sampling.event_log import EventLog
from powerhall_agent.sampling.fast_window import MAX_PENDING, FastWindow
from powerhall_agent.sampling.flight_recorder import FlightRecorder
from powerhall_agent.sampling.gpu_health import HUNG, OK, RETRY, GpuHealth
from powerhall_agent.sampling.plausibility import GpuPlausibility
from powerhall_agent.sampling.record_queue import RecordQueue

__all__ = ["FAST", "FULL", "IDENTITY", "SLOW", "GpuReader", "ReaderContext", "Tick"]

FAST, FULL, SLOW, IDENTITY = 1, 2, 4, 8
_SLOWDOWNS: Final = 0x8 | 0x20 | 0x40 | 0x80
"""Hardware slowdown, software thermal, hardware thermal, power brake; a power cap is no fault here."""
_CLOSURE_ALARM: Final = 0.02
_CLOSURES_PER_ALARM: Final = 6
_CONTRADICTION: Final = 0.3
"""Difference of counter and integral that no sampling explains: one of the two sensors is wrong."""
_MEASUREMENTS: Final = ("gpu", "gpu_fast", "gpu_slow", "gpu_activity", "gpu_identity")
_KEEP_NS: Final = 900_000_000
"""Totals are kept at most about once a second, however short the interval is."""
_NOTHING: Final[FastSample] = (None, None)


@dataclass(frozen=True, slots=True)
class ReaderContext:
    """State that all GPUs of a node share."""

    tags: dict[str, str]
    checkpoint: Checkpoint
    boot: int
    clock: Clock
    stats: CollectorStats
    queue: RecordQueue
    events: EventLog
    tick: "Tick"
    fields: frozenset[str]
    """Fields of the full set to read; empty: all."""
    recorder: bool
    fast_interval_s: float
    extra: Sequence[ExtraField] = ()
    gpm: bool = True


class Tick:
    """The current tick, shared by all GPUs."""

    __slots__ = ("moment",)

    def __init__(self) -> None:
        self.moment = Moment(0, 0)


class GpuReader:
    """Reads one GPU; `poll` and `poll_fast` run on a driver thread."""

    def __init__(self, driver: Driver, gpu: Gpu, context: ReaderContext) -> None:
        """Bind to the GPU and continue from the energy totals of an earlier run."""
        self.gpu, self._driver, self._context = gpu, driver, context
        self.tags = {**context.tags, "gpu": str(gpu.index)}
        self.health = GpuHealth()
        self.dead_code = 0
        self._tick, self._monotonic_ns = context.tick, context.clock.monotonic_ns
        self.due_ns: dict[int, int] = {}
        self.next_due_ns = 0
        """When each slow set is due next, and the earliest of these; kept by the session."""
        self.reported_reason = OK
        """The state that was last written."""
        self._series = {name: Series(name, self.tags) for name in _MEASUREMENTS}
        kept = context.checkpoint.totals(gpu.uuid)
        self.energy = EnergyAccumulator() if kept is None else _resume(kept, context.boot)
        recorder = FlightRecorder(rate_hz=1.0 / context.fast_interval_s) if context.recorder else None
        self.sensors = SensorLog()
        self.checks = GpuPlausibility(self.sensors, self._monotonic_ns)
        self.fast = FastWindow(self.energy, recorder, self.sensors)
        self._pending = self.fast.pending
        self._family = context.stats.family("gpu_fast")
        self._wants_times = False
        self.field_times_s: dict[str, float] = {}
        """Driver time of each reading; measured after an identity, taken by the report of the sampler."""
        self._slowdowns = self._keep_from_ns = 0
        self._off_closures = 0
        self._gpm: GpuGpm | None = None
        self.mig: list[tuple[MigInstance, Series]] = []
        self.rebind_mig = True
        self._bind()

    def _bind(self) -> None:
        wanted = self._context.fields
        self._collectors = {entry.measurement: entry.make(self._driver, self.gpu, wanted) for entry in GPU_COLLECTORS}
        fast = self._collectors["gpu_fast"]
        assert isinstance(fast, GpuFast)
        self._gpu_fast = fast
        self._free_gpm()
        self._gpm = GpuGpm(self._driver, self.gpu) if self._context.gpm else None
        self._extra = GpuExtra(self._driver, self.gpu, self._context.extra) if self._context.extra else None

    @property
    def now(self) -> GpuSnapshot:
        """The state of this GPU for job attribution."""
        slow = self._collectors["gpu_slow"]
        pids, usage = (slow.pids, slow.usage_percent) if isinstance(slow, GpuSlow) else ((), {})
        slices = {instance.uuid: instance.slice for instance, _ in self.mig if instance.uuid}
        every = {*pids, *(pid for part in slices.values() for pid in part.pids)}
        energy_j = self.energy.counter_mj / 1000.0
        return GpuSnapshot(self.gpu.uuid, self.gpu.bus_id, tuple(sorted(every)), energy_j, tuple(slices), slices, usage)

    def poll_fast(self) -> None:
        """Read power and energy in the current tick; runs ten times a second."""
        if not self._quick():
            self.poll(self._tick.moment, FAST)
        elif self.health.reason != OK:  # the call took so long that the GPU was quarantined meanwhile
            self._answered(self._tick.moment)

    def poll_full(self) -> None:
        """Read the full set as well in the current tick; runs once a second."""
        self.poll(self._tick.moment, FAST | FULL)

    def poll(self, moment: Moment, kinds: int) -> None:
        """Take the due readings; a failed driver call becomes a state, never an exception."""
        try:
            if not self._quick():
                power_mw, counter_mj = self._family.call(self._gpu_fast.sample, _NOTHING)
                self.fast.add((self._monotonic_ns(), moment.ms, power_mw, counter_mj))
            if kinds != FAST:
                self._slower(moment, kinds)
        except pynvml.NVMLError as error:
            self._fault(error.value, moment)
            return
        if self.health.reason != OK or self.health.strikes:
            self._answered(moment)

    def _quick(self) -> bool:
        """Read power and energy by the fast path; False where the general path has to be taken.

        One function, because it runs ten times a second with cold caches, where each call costs microseconds.
        """
        shortcut = self._gpu_fast.shortcut
        if shortcut is None or self.health.reason != OK or self.health.strikes:
            return False
        time_ms, now, family = self._tick.moment.ms, self._monotonic_ns, self._family
        call, arguments, unpack, memory, power_status, energy_status = shortcut
        begun_ns = now()
        if call(*arguments):
            return False
        power_was, power_mw, energy_was, energy_mj = unpack(memory)
        if not power_mw or power_was != power_status or energy_was != energy_status:
            return False
        ended_ns = now()
        family.runs += 1
        family.spent_ns += ended_ns - begun_ns
        self._pending.append((ended_ns, time_ms, power_mw, energy_mj))
        if len(self._pending) >= MAX_PENDING:
            self.drain_fast()
        return True

    def _slower(self, moment: Moment, kinds: int) -> None:
        if kinds & SLOW:
            self._slow(moment)
        if kinds & FULL:
            self._full(moment)
        if kinds & IDENTITY:
            self._simple("gpu_identity", moment)
            self._wants_times = True
        elif self._wants_times and kinds & SLOW:
            self._wants_times, self.field_times_s = False, self._times_s()

    def _times_s(self) -> dict[str, float]:
        """Return how long the driver takes for each reading, by the names of their fields."""
        times: dict[str, float] = {}
        for collector in self._collectors.values():
            if isinstance(collector, GpuFast | GpuFull | GpuSlow):
                times |= collector.batch.times_s()
            if isinstance(collector, GpuFull | GpuSlow):
                times |= collector.getters.times_s()
        return times

    def _answered(self, moment: Moment) -> None:
        if self.health.reason == HUNG:
            self.health.retry_ns = moment.mono_ns
        elif self.health.recover():
            self.event("gpu_recovered", 0, "the GPU answers again", 0, moment.ms)

    def retry(self, moment: Moment) -> None:
        """Try a quarantined GPU again: find it by its bus id, bind anew, read once.

        Where another GPU is there now, the driver is opened anew: energy, limits and events belong to the former one.
        """
        try:
            if not self.gpu.reopen():
                detail = f"another GPU is in the place of {self.gpu.uuid}"
                self.event("gpu_replaced", 0, detail, 1, moment.ms)
                self._fault(pynvml.NVML_ERROR_UNINITIALIZED, moment)
                return
            self._bind()
        except pynvml.NVMLError as error:
            self._fault(error.value, moment)
            return
        if self.health.reason == HUNG:
            self.health.reason = RETRY
        self.rebind_mig = True
        self.poll(moment, FAST | FULL | IDENTITY)

    def _fault(self, code: int, moment: Moment) -> None:
        if action(code) in {Action.REINIT, Action.RESPAWN}:
            self.dead_code = code
            self._context.queue.urgent = True  # the sampler handles it within this tick
        elif self.health.fault(code, moment.mono_ns):
            self.event("gpu_quarantined", code, f"{self.health.reason}: NVML code {code}", 2, moment.ms)
            self.fast.record(moment.ms)
            self.drain_fast()

    def event(self, kind: str, code: float, detail: str, severity: int, time_ms: int) -> None:
        """Queue an event of this GPU."""
        self._context.events.put(kind, code, detail, severity, time_ms, self.gpu.index)

    def trigger(self, kind: str, code: float, detail: str, severity: int, time_ms: int) -> None:
        """Queue an event and start the flight recorder."""
        if not self._context.recorder or self.fast.record(time_ms) or severity > 0:
            self.event(kind, code, detail, severity, time_ms)

    def drain_fast(self) -> None:
        """Process the fast readings and queue those of a recording; not while a reading is under way."""
        found = self.fast.drain()
        for time_ms in found.restarts:
            self.event("counter_reset", 0, "the energy counter restarted", 1, time_ms)
        for time_ms, step_w in found.steps:
            self.trigger("power_step", step_w, f"{step_w:+.0f} W", 0, time_ms)
        for event in self.sensors.take_events():
            self.event(event.kind, event.code, event.detail, event.severity, self._tick.moment.ms)
        for time_ms, power_mw, energy_mj in self.fast.take_recorded():
            self._put("gpu_fast", {"power_w": power_mw / 1000.0, "energy_j": energy_mj / 1000.0}, time_ms)

    def _put(self, name: str, fields: Fields, time_ms: int) -> None:
        self._context.queue.put(Record(self._series[name], fields, time_ms))

    def _run(self, name: str) -> Fields:
        return self._context.stats.family(name).run(self._collectors[name])

    def _full(self, moment: Moment) -> None:
        found = self._sifted("gpu")
        self.drain_fast()
        fields = {**self.fast.interval(), **found}
        self._put("gpu", fields, moment.ms)
        self._watch_limits(fields, moment)
        if moment.mono_ns >= self._keep_from_ns:
            self._keep_from_ns = moment.mono_ns + _KEEP_NS
            self._keep()

    def _keep(self) -> None:
        """Keep the totals over a restart; what comes after is filled from the driver's counter."""
        energy = self.energy
        self._context.checkpoint.keep(
            Totals(
                self.gpu.uuid,
                energy.counter_mj,
                energy.integral_mj,
                energy.raw_mj or 0,
                self._context.boot,
                energy.counter.raw_ns,
            )
        )

    def _sifted(self, name: str) -> Fields:
        """Collect, leave out what this GPU cannot show, and bound its power by the limits that it tells."""
        fields = self.checks.sift(self._run(name))
        self.fast.most_mw = int(1000.0 * self.checks.most_w)
        self.energy.counter.most_per_s = int(1000.0 * self.checks.counter_most_w)
        return fields

    def _watch_limits(self, fields: Fields, moment: Moment) -> None:
        limit_w, reasons = fields.get("power_limit_w"), fields.get("clocks_event_reasons")
        if isinstance(limit_w, int | float):
            before_w = self.fast.limit_w
            if before_w is not None and limit_w != before_w:
                self.trigger("limit_change", limit_w, f"{before_w:.0f} W -> {limit_w:.0f} W", 0, moment.ms)
            self.fast.limit_w = float(limit_w)
        if isinstance(reasons, int | float):
            slowdowns = int(reasons) & _SLOWDOWNS
            if slowdowns & ~self._slowdowns:
                self.trigger("throttle_onset", slowdowns, f"clocks event reasons {slowdowns:#x}", 1, moment.ms)
            self._slowdowns = slowdowns

    def _slow(self, moment: Moment) -> None:
        fields = dict(self._sifted("gpu_slow"))
        self.drain_fast()  # the closure counts all readings up to now
        closure = self.energy.closure()
        if closure is not None:
            fields["energy_closure"] = round(closure, 6)
            self._watch_closure(closure, moment)
        self._put("gpu_slow", fields, moment.ms)
        self._put_optional(moment)
        if self.rebind_mig or bool(fields.get("mig_mode")) != bool(self.mig):
            self.bind_mig()
        for instance, series in self.mig:
            found = self.checks.sift(self._context.stats.family("gpu_mig").run(instance))
            self._context.queue.put(Record(series, found, moment.ms))

    def _put_optional(self, moment: Moment) -> None:
        """Read and queue the activity of the GPU's parts, and the fields that the site added."""
        if self._gpm is not None:
            activity = self.checks.sift(self._context.stats.family("gpu_activity").run(self._gpm))
            if activity:
                self._put("gpu_activity", activity, moment.ms)
        if self._extra is None:
            return
        found = self._context.stats.family("gpu_extra").run(self._extra)
        for name, fields in self._extra.points(found, self.sensors):
            series = Series("gpu_extra", {**self.tags, "field": name})
            self._context.queue.put(Record(series, fields, moment.ms))

    def _watch_closure(self, closure: float, moment: Moment) -> None:
        """Queue an event when counter and integral differ for a minute; once per period of difference."""
        self._off_closures = self._off_closures + 1 if abs(closure) > _CLOSURE_ALARM else 0
        if self._off_closures >= _CLOSURES_PER_ALARM and abs(closure) > _CONTRADICTION:
            self.sensors.doubt("energy_closure", f"energy counter and power samples differ by {closure:+.0%}")
        elif not self._off_closures:
            self.sensors.believe("energy_closure", IN_A_ROW)
        if self._off_closures == _CLOSURES_PER_ALARM:
            detail = f"energy counter and integrated power differ by {closure:+.1%}"
            self.event("energy_closure", closure, detail, 1, moment.ms)

    def bind_mig(self) -> None:
        """List the MIG instances anew."""
        self.free_mig()
        self.mig = [
            (found, Series("gpu_mig", {**self.tags, "instance": str(found.instance)}))
            for found in instances_of(self.gpu)
        ]
        self.rebind_mig = False

    def _free_gpm(self) -> None:
        if self._gpm is not None:
            self._gpm.close()

    def free(self) -> None:
        """Free all resources of the driver; needed before an unbind."""
        self.free_mig()
        self._free_gpm()

    def free_mig(self) -> None:
        """Free the driver's resources of the instances; needed before an unbind."""
        for instance, _ in self.mig:
            instance.close()
        self.mig = []

    def _simple(self, name: str, moment: Moment) -> None:
        fields = self._run(name)
        if fields:
            self._put(name, fields, moment.ms)


def _resume(kept: Totals, boot: int) -> EnergyAccumulator:
    """Continue from stored totals; after a reboot the driver's counter has restarted."""
    if kept.boot != boot:
        return EnergyAccumulator(kept.counter_mj, kept.integral_mj, 0)
    return EnergyAccumulator(kept.counter_mj, kept.integral_mj, kept.raw_mj or None, kept.raw_ns)
