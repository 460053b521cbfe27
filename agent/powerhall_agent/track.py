"""One GPU between binding and unbinding: its collectors, interval statistics, energy, flight recorder and health."""

from collections import deque
from dataclasses import dataclass
from typing import Final

import pynvml

from powerhall_agent.attribution.intervals import GpuNow
from powerhall_agent.checkpoint import Checkpoint, Totals
from powerhall_agent.clock import Clock, Moment
from powerhall_agent.collectors import GPU_COLLECTORS
from powerhall_agent.collectors.gpu_mig import MigInstance, instances_of
from powerhall_agent.collectors.gpu_slow import GpuSlow
from powerhall_agent.encode import Fields, Record, Series
from powerhall_agent.energy import EnergyTruth
from powerhall_agent.health import Health
from powerhall_agent.nvml.codes import Action, action
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.recorder import Recorder
from powerhall_agent.watch import Families

__all__ = ["FAST", "FULL", "IDENTITY", "SLOW", "GpuTrack", "TrackContext"]

FAST, FULL, SLOW, IDENTITY = 1, 2, 4, 8
_SLOWDOWNS: Final = 0x8 | 0x20 | 0x40 | 0x80
"""Hardware slowdown, software thermal, hardware thermal, power brake; a power cap is no fault here."""
_POWER_STEP: Final = 0.3
_CLOSURE_ALARM: Final = 0.02
_CLOSURES_PER_ALARM: Final = 6
_HISTORY: Final = 10


@dataclass(frozen=True, slots=True)
class TrackContext:
    """What all GPUs of a node share."""

    tags: dict[str, str]
    checkpoint: Checkpoint
    boot: int
    clock: Clock
    families: Families
    recorder: bool
    fast_interval_s: float


class GpuTrack:
    """Reads one GPU; `poll` runs on a driver thread, `out` is drained by the sampler's."""

    def __init__(self, driver: Driver, gpu: Gpu, context: TrackContext) -> None:
        """Bind to the GPU and go on from the energy totals of an earlier run."""
        self.gpu, self._driver, self._context = gpu, driver, context
        self.tags = {**context.tags, "gpu": str(gpu.index)}
        self.out: deque[Record] = deque()
        self.health = Health()
        self.dead_code = 0
        self.due_ns: dict[int, int] = {}
        self.next_due_ns = 0
        """When each set is due next, and the earliest of these; kept by the generation."""
        self.shown_reason = "ok"
        """The state that was last written."""
        self.power_w: float | None = None
        self._series = {name: Series(name, self.tags) for name in ("gpu", "gpu_fast", "gpu_slow", "gpu_identity")}
        kept = context.checkpoint.totals(gpu.uuid)
        self.energy = EnergyTruth() if kept is None else _resume(kept, context.boot)
        self._recorder = Recorder(rate_hz=1.0 / context.fast_interval_s) if context.recorder else None
        self._powers: deque[float] = deque(maxlen=_HISTORY)
        self._low_w, self._high_w, self._sum_w, self._count = 0.0, 0.0, 0.0, 0
        self._limit_w: float | None = None
        self._slowdowns = 0
        self._off_closures = 0
        self.mig: list[tuple[MigInstance, Series]] = []
        self.rebind_mig = True
        self._bind()

    def _bind(self) -> None:
        self._collectors = {entry.measurement: entry.make(self._driver, self.gpu) for entry in GPU_COLLECTORS}

    @property
    def now(self) -> GpuNow:
        """What job attribution needs to know of this GPU."""
        slow = self._collectors["gpu_slow"]
        pids = slow.pids if isinstance(slow, GpuSlow) else ()
        instances = [instance for instance, _ in self.mig]
        every = {*pids, *(pid for instance in instances for pid in instance.pids)}
        uuids = tuple(instance.uuid for instance in instances)
        return GpuNow(self.gpu.uuid, self.gpu.bus_id, tuple(sorted(every)), self.energy.counter_mj / 1000.0, uuids)

    def poll(self, moment: Moment, kinds: int) -> None:
        """Read what is due; a failed driver call becomes a state, never an exception."""
        try:
            self._fast(moment)
            if kinds & SLOW:
                self._slow(moment)
            if kinds & FULL:
                self._full(moment)
            if kinds & IDENTITY:
                self._simple("gpu_identity", moment)
        except pynvml.NVMLError as error:
            self._fault(error.value, moment)
            return
        if self.health.reason == "hung":
            self.health.retry_ns = moment.mono_ns
        elif self.health.well():
            self.event("gpu_recovered", 0, "the GPU answers again", 0, moment.ms)

    def retry(self, moment: Moment) -> None:
        """Try a quarantined GPU again: find it by its bus id, bind anew, read once."""
        try:
            self.gpu.reopen()
            self._bind()
        except pynvml.NVMLError as error:
            self._fault(error.value, moment)
            return
        if self.health.reason == "hung":
            self.health.reason = "retry"
        self.rebind_mig = True
        self.poll(moment, FAST | FULL | IDENTITY)

    def _fault(self, code: int, moment: Moment) -> None:
        if action(code) in {Action.REINIT, Action.RESPAWN}:
            self.dead_code = code
        elif self.health.fault(code, moment.mono_ns):
            self.event("gpu_quarantined", code, f"{self.health.reason}: NVML code {code}", 2, moment.ms)

    def event(self, kind: str, code: float, detail: str, severity: int, time_ms: int) -> None:
        """Put an event of this GPU into the output."""
        series = Series("event", {**self.tags, "kind": kind})
        self.out.append(Record(series, {"code": float(code), "detail": detail, "severity": float(severity)}, time_ms))

    def trigger(self, kind: str, code: float, detail: str, severity: int, time_ms: int) -> None:
        """Put an event into the output and start the flight recorder."""
        if self._recorder is None or self._recorder.trigger(time_ms) or severity > 0:
            self.event(kind, code, detail, severity, time_ms)

    def _run(self, name: str) -> Fields:
        return self._context.families.family(name).run(self._collectors[name])

    def _fast(self, moment: Moment) -> None:
        fields = self._run("gpu_fast")
        power_w, energy_j = fields.get("power_w"), fields.get("energy_j")
        power_mw = None if power_w is None else round(float(power_w) * 1000)
        raw_mj = None if energy_j is None else round(float(energy_j) * 1000)
        if self.energy.add(self._context.clock.monotonic_ns(), power_mw, raw_mj):
            self.event("counter_reset", 0, "the energy counter restarted", 1, moment.ms)
        if power_w is None:
            return
        watts = float(power_w)
        self.power_w = watts
        self._low_w = watts if not self._count else min(self._low_w, watts)
        self._high_w = max(self._high_w, watts)
        self._sum_w += watts
        self._count += 1
        if self._recorder is not None:
            self._record(self._recorder, moment, watts)

    def _record(self, recorder: Recorder, moment: Moment, watts: float) -> None:
        if self._limit_w and self._powers and abs(watts - self._powers[0]) > _POWER_STEP * self._limit_w:
            self.trigger("power_step", watts - self._powers[0], f"{watts - self._powers[0]:+.0f} W", 0, moment.ms)
            self._powers.clear()
        self._powers.append(watts)
        recorder.add(moment.ms, round(watts * 1000), self.energy.counter_mj)
        for time_ms, power_mw, energy_mj in recorder.take():
            fields = {"power_w": power_mw / 1000.0, "energy_j": energy_mj / 1000.0}
            self.out.append(Record(self._series["gpu_fast"], fields, time_ms))

    def _full(self, moment: Moment) -> None:
        fields: dict[str, float | str] = {}
        if self._count:
            fields["power_w"] = round(self._sum_w / self._count, 3)
            fields["power_min_w"], fields["power_max_w"] = self._low_w, self._high_w
        self._low_w = self._high_w = self._sum_w = 0.0
        self._count = 0
        if self.energy.raw_mj is not None:
            fields["energy_j"] = self.energy.counter_mj / 1000.0
        if self.power_w is not None:
            fields["energy_integral_j"] = self.energy.integral_mj / 1000.0
        fields.update(self._run("gpu"))
        self.out.append(Record(self._series["gpu"], fields, moment.ms))
        self._watch_limits(fields, moment)
        energy = self.energy
        self._context.checkpoint.keep(
            Totals(self.gpu.uuid, energy.counter_mj, energy.integral_mj, energy.raw_mj or 0, self._context.boot)
        )

    def _watch_limits(self, fields: Fields, moment: Moment) -> None:
        limit_w, reasons = fields.get("power_limit_w"), fields.get("clocks_event_reasons")
        if isinstance(limit_w, int | float):
            if self._limit_w is not None and limit_w != self._limit_w:
                self.trigger("limit_change", limit_w, f"{self._limit_w:.0f} W -> {limit_w:.0f} W", 0, moment.ms)
            self._limit_w = float(limit_w)
        if isinstance(reasons, int | float):
            slowdowns = int(reasons) & _SLOWDOWNS
            if slowdowns & ~self._slowdowns:
                self.trigger("throttle_onset", slowdowns, f"clocks event reasons {slowdowns:#x}", 1, moment.ms)
            self._slowdowns = slowdowns

    def _slow(self, moment: Moment) -> None:
        fields = dict(self._run("gpu_slow"))
        closure = self.energy.closure()
        if closure is not None:
            fields["energy_closure"] = round(closure, 6)
            self._watch_closure(closure, moment)
        self.out.append(Record(self._series["gpu_slow"], fields, moment.ms))
        if self.rebind_mig or bool(fields.get("mig_mode")) != bool(self.mig):
            self.bind_mig()
        for instance, series in self.mig:
            self.out.append(Record(series, self._context.families.family("gpu_mig").run(instance), moment.ms))

    def _watch_closure(self, closure: float, moment: Moment) -> None:
        """Alarm when counter and integral are apart for a minute; once per stretch."""
        self._off_closures = self._off_closures + 1 if abs(closure) > _CLOSURE_ALARM else 0
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

    def free_mig(self) -> None:
        """Free what the driver holds for the instances; needed before an unbind."""
        for instance, _ in self.mig:
            instance.close()
        self.mig = []

    def _simple(self, name: str, moment: Moment) -> None:
        fields = self._run(name)
        if fields:
            self.out.append(Record(self._series[name], fields, moment.ms))


def _resume(kept: Totals, boot: int) -> EnergyTruth:
    """Go on from kept totals; after a reboot the driver's counter has restarted."""
    return EnergyTruth(kept.counter_mj, kept.integral_mj, kept.raw_mj if kept.boot == boot else 0)
