"""The sampler: owns NVML in its process, reads every GPU at its cadence and writes finished lines to a sink.

One thread keeps time and never enters the driver; driver calls run on the crew's thread, and a call that blocks costs
its own GPU only. A driver that goes away is initialised again with backoff; an unbind or a library that does not fit
the driver ends `run_sampler`, because only a new process can let go of the library.
"""

import functools
import logging
import random
from collections import deque
from enum import Enum
from pathlib import Path
from typing import Final, Protocol

import pynvml

from powerhall_agent.attribution.intervals import GpuNow
from powerhall_agent.checkpoint import Checkpoint
from powerhall_agent.clock import Clock, Moment, Stamper, SystemClock
from powerhall_agent.collectors.rapl import POWERCAP, Rapl
from powerhall_agent.crew import Crew, Task
from powerhall_agent.encode import Fields, Record, Series, encode_all
from powerhall_agent.events import DriverEvent, EventWatch
from powerhall_agent.hostlane import Pace, collect_into, look_into
from powerhall_agent.nvml.codes import Action, action
from powerhall_agent.nvml.driver import Driver
from powerhall_agent.sampler_settings import SamplerSettings
from powerhall_agent.simulate.setup import start_simulation
from powerhall_agent.sink import Sink
from powerhall_agent.track import FAST, FULL, IDENTITY, SLOW, GpuTrack, TrackContext
from powerhall_agent.watch import Families

__all__ = ["Sampler", "SamplerExit", "run_sampler"]

_log = logging.getLogger(__name__)
_DRIVER: Final = -1
_REPORT_S: Final = 10.0
_STUCK_NS: Final = 4_500_000_000
_REINIT_FIRST_S, _REINIT_LAST_S = 1.0, 30.0


class SamplerExit(Enum):
    """Why `run_sampler` returned; its values are the exit codes of a sampler process."""

    STOPPED = 0
    UNBIND = 10
    """The driver wants to be unbound: start again only after some seconds."""
    MISMATCH = 11
    """The loaded library does not fit the driver: start a new process at once."""


class Stop(Protocol):
    """Says when to end, such as a `threading.Event`."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait; True when the sampler should end."""


class Sampler:
    """All GPUs of a node; `tick` is called at the fast interval."""

    def __init__(self, settings: SamplerSettings, sink: Sink, clock: Clock | None = None) -> None:
        """Prepare; the driver is opened by the first tick."""
        self.settings, self._sink = settings, sink
        self.clock = clock or SystemClock()
        state = Path(settings.state_dir) if settings.state_dir else None
        self._checkpoint = Checkpoint(state / f"{settings.node}.energy" if state else None)
        self.stamper = Stamper(self._checkpoint.last_ms())
        self.crew = Crew(settings.slow_call_s)
        self.tags = {"site": settings.site, "hall": settings.hall, "rack": settings.rack, "node": settings.node}
        self.families = Families()
        self.driver: Driver | None = None
        self.tracks: list[GpuTrack] = []
        self.exit: SamplerExit | None = None
        self.ticks_missed = 0
        self._opened: Driver | None = None
        self._open_failed = self._missing_code = 0
        self._watch: EventWatch | None = None
        self._open_at_ns, self._reinit_s = 0, _REINIT_FIRST_S
        self._report_ns = 0
        self._full_ns = 0
        self._was_stuck = False
        self._state_series: list[Series] = []
        self._own = {name: Series(name, self.tags) for name in ("node", "agent")}
        self.out: deque[Record] = deque()
        """Records from any thread, shipped with the next tick."""
        self.host: deque[Fields] = deque(maxlen=100)
        """Readings of the host from other threads; they get the next tick's timestamp."""

    # Opening and closing a driver generation.

    def open(self) -> None:
        """Open the driver on the calling thread; raises NVMLError when it is not there."""
        self._bound(self._open())

    def _open(self) -> Driver:
        driver = Driver(self.settings.first_gpu, self.settings.gpu_count)
        context = TrackContext(
            self.tags,
            self._checkpoint,
            _boot_id(),
            self.clock,
            self.families,
            self.settings.flight_recorder,
            self.settings.fast_interval_s,
        )
        self._tracks_opened = [GpuTrack(driver, gpu, context) for gpu in driver.gpus]
        self._watch_opened = EventWatch(driver, driver.gpus)
        return driver

    def _try_open(self) -> None:
        try:
            self._opened = self._open()
        except pynvml.NVMLError as error:
            self._open_failed = error.value

    def _opening(self, moment: Moment) -> None:
        """Open the driver with backoff, on a driver thread."""
        if self._take_opened():
            return
        if self._open_failed:
            code, self._open_failed = self._open_failed, 0
            if action(code) is Action.RESPAWN:
                self.exit = SamplerExit.MISMATCH
            self._open_at_ns = moment.mono_ns + int(self._reinit_s * 1e9)
            self._reinit_s = min(_REINIT_LAST_S, self._reinit_s * 2)
            if code != self._missing_code:
                self._missing_code = code
                self.event(DriverEvent("driver_missing", None, code, f"no NVML: {pynvml.NVMLError(code)}", 2), moment)
        elif moment.mono_ns >= self._open_at_ns and self.crew.blocked_since_ns(_DRIVER) is None:
            self.crew.run([Task(_DRIVER, self._try_open)])
            self._take_opened()

    def _take_opened(self) -> bool:
        """Take over the driver that a driver thread has opened, if any."""
        opened = self._opened
        if opened is not None:
            self._bound(opened)
        return opened is not None

    def _bound(self, driver: Driver) -> None:
        self.driver, self._opened = driver, None
        self.tracks, self._watch = self._tracks_opened, self._watch_opened
        self._state_series = [Series("gpu_state", track.tags) for track in self.tracks]
        self._reinit_s = _REINIT_FIRST_S
        self._missing_code = 0
        _log.info("driver_bound version=%s gpus=%d events=%d", driver.version, len(self.tracks), self._watch.watched)

    def close(self) -> None:
        """Free what the driver holds; a blocked driver is left behind."""
        driver, watch, tracks = self.driver, self._watch, self.tracks
        self.driver, self._watch, self.tracks = None, None, []
        if driver is None:
            return
        if watch is not None:
            watch.close()

        def free() -> None:
            for track in tracks:
                track.free_mig()
            driver.close()

        self.crew.run([Task(_DRIVER, free)])

    def _generation_dead(self, code: int, moment: Moment) -> None:
        if action(code) is Action.RESPAWN:
            self.exit = SamplerExit.MISMATCH
        self.event(DriverEvent("driver_gone", None, code, f"driver gone: {pynvml.NVMLError(code)}", 2), moment)
        self.close()
        self._open_at_ns = moment.mono_ns + int(self._reinit_s * 1e9)

    # One tick.

    def tick(self, moment: Moment | None = None) -> None:
        """Read what is due and write one block of lines."""
        moment = moment or self.stamper.moment(self.clock)
        if self.driver is None:
            self._opening(moment)
        if self.driver is not None:
            self._events(moment)
            self._read(moment)
        if moment.mono_ns >= self._full_ns:
            self._full_ns = _next(self._full_ns, moment.mono_ns, self.settings.interval_s)
            self._states(moment)
            self._checkpoint.keep_ms(self.stamper.last_ms)
        stuck = self.driver_stuck(moment)
        if moment.mono_ns >= self._report_ns or stuck != self._was_stuck:
            self._was_stuck = stuck
            self._report_ns = _next(self._report_ns, moment.mono_ns, _REPORT_S)
            self._report(moment)
        while self.host:
            self.out.append(Record(self._own["node"], self.host.popleft(), moment.ms))
        self._flush()

    def _read(self, moment: Moment) -> None:
        tasks = []
        for track in self.tracks:
            if track.health.up:
                kinds = self._kinds(track, moment.mono_ns)
                tasks.append(Task(track.gpu.index, functools.partial(track.poll, moment, kinds)))
            elif track.health.due(moment.mono_ns):
                tasks.append(Task(track.gpu.index, functools.partial(track.retry, moment)))
        self.crew.run(tasks)
        self._flag_hung(moment)
        dead = next((track.dead_code for track in self.tracks if track.dead_code), 0)
        if dead:
            self._generation_dead(dead, moment)

    def _kinds(self, track: GpuTrack, mono_ns: int) -> int:
        """Return what is due of a GPU; the slow set of each GPU has a tick of its own."""
        if mono_ns < track.next_due_ns:
            return FAST
        kinds = FAST
        due = track.due_ns
        for kind, seconds, shift_s in (
            (FULL, self.settings.interval_s, self.settings.interval_s),
            (SLOW, self.settings.slow_interval_s, track.gpu.index * self.settings.fast_interval_s),
            (IDENTITY, self.settings.identity_interval_s, 0.0),
        ):
            if kind not in due:
                due[kind] = mono_ns + int(shift_s * 1e9)
            if mono_ns >= due[kind]:
                due[kind] = _next(due[kind], mono_ns, seconds)
                kinds |= kind
        track.next_due_ns = min(due.values())
        return kinds

    def _flag_hung(self, moment: Moment) -> None:
        hung_ns = int(self.settings.hung_call_s * 1e9)
        for track in self.tracks:
            since_ns = self.crew.blocked_since_ns(track.gpu.index)
            if since_ns is None or track.health.reason == "hung":
                continue
            if self.clock.monotonic_ns() - since_ns >= hung_ns and track.health.quarantine("hung", moment.mono_ns):
                track.event("gpu_quarantined", 0, "hung: a driver call does not return", 2, moment.ms)
                self._state(track, moment)

    def _events(self, moment: Moment) -> None:
        watch = self._watch
        while watch is not None and not watch.events.empty():
            event = watch.events.get()
            self._handle(event, moment)

    def _handle(self, event: DriverEvent, moment: Moment) -> None:
        track = next((track for track in self.tracks if track.gpu.index == event.gpu), None)
        if track is None:
            self.event(event, moment)
        else:
            track.trigger(event.kind, event.code, event.detail, event.severity, moment.ms)
            if event.kind == "mig_change":
                track.rebind_mig = True
                track.due_ns.update({SLOW: moment.mono_ns, IDENTITY: moment.mono_ns})
                track.next_due_ns = 0
        if event.kind == "driver_unbind":
            self.exit = SamplerExit.UNBIND

    def event(self, event: DriverEvent, moment: Moment) -> None:
        """Put an event of the node into the output."""
        tags = {**self.tags, "gpu": "" if event.gpu is None else str(event.gpu), "kind": event.kind}
        fields: dict[str, float | str] = {"code": float(event.code), "detail": event.detail}
        fields["severity"] = float(event.severity)
        self.out.append(Record(Series("event", tags), fields, moment.ms))

    # What the sampler says about itself and the node.

    def _state(self, track: GpuTrack, moment: Moment) -> None:
        up = track.health.up
        fields: dict[str, float | str] = {"up": 1.0 if up else 0.0, "reason": track.health.reason}
        fields["call_latency_s"] = round(self.crew.slowest_s.pop(track.gpu.index, 0.0), 6)
        self.out.append(Record(self._state_series[self.tracks.index(track)], fields, moment.ms))

    def _states(self, moment: Moment) -> None:
        for track in self.tracks:
            self._state(track, moment)
        driver = self.driver
        up = [track for track in self.tracks if track.health.up]
        fields = {"gpus": float(len(self.tracks) + (len(driver.unopened) if driver else 0)), "gpus_up": float(len(up))}
        powers = [track.power_w for track in up if track.power_w is not None]
        if powers:
            fields["gpu_power_w"] = round(sum(powers), 3)
        self.out.append(Record(self._own["node"], fields, moment.ms))

    def _report(self, moment: Moment) -> None:
        for name, family in self.families.by_name.items():
            if family.runs:
                series = Series("collector", {**self.tags, "collector": name})
                self.out.append(Record(series, family.report(), moment.ms))
        fields = {
            "ticks_missed": float(self.ticks_missed),
            "driver_time_s": round(self.crew.busy_s, 6),
            "driver_stuck": 1.0 if self._was_stuck else 0.0,
        }
        self.out.append(Record(self._own["agent"], fields, moment.ms))

    def driver_stuck(self, moment: Moment) -> bool:
        """Say whether no GPU has answered for 4.5 seconds because driver calls do not return."""
        owners = [track.gpu.index for track in self.tracks] or [_DRIVER]
        since = [self.crew.blocked_since_ns(owner) for owner in owners]
        return all(begun is not None and moment.mono_ns - begun >= _STUCK_NS for begun in since)

    def gpus(self) -> dict[int, GpuNow]:
        """Return what job attribution needs to know of the GPUs that answer."""
        return {track.gpu.index: track.now for track in self.tracks if track.health.up}

    def _flush(self) -> None:
        records = []
        for source in (*(track.out for track in self.tracks), self.out):
            while source:
                records.append(source.popleft())
        if records:
            self._sink.write(encode_all(records))


def _next(due_ns: int, now_ns: int, seconds: float) -> int:
    """Return the next due time on the same grid, after now."""
    step_ns = int(seconds * 1e9)
    if due_ns == 0:
        return now_ns + step_ns
    return due_ns + step_ns * (1 + max(0, now_ns - due_ns) // step_ns)


def _boot_id() -> int:
    """Return a number that names this boot of the host; 0 where the kernel does not say."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.replace("-", "")[:15], 16)


def _host_readings(settings: SamplerSettings, sampler: Sampler) -> list[Pace]:
    """Start what is read beside the GPUs, as the settings say."""
    paces = []
    if settings.rapl and POWERCAP.is_dir():
        run = collect_into(sampler.host, sampler.families.family("rapl"), Rapl())
        paces.append(Pace("host-rapl", run, settings.interval_s))
    if settings.redfish is not None:
        from powerhall_agent.collectors.redfish import Redfish

        run = collect_into(sampler.host, sampler.families.family("redfish"), Redfish(settings.redfish))
        paces.append(Pace("host-redfish", run, settings.redfish.interval_s))
    if settings.attribution:
        from powerhall_agent.attribution.collect import Attribution, user_hasher
        from powerhall_agent.attribution.host import HostJobs

        jobs = Attribution(sampler.tags, HostJobs(user_hasher(settings.user_hash_salt_file)), sampler.gpus)
        paces.append(Pace("host-jobs", look_into(sampler.out, jobs.look), settings.slow_interval_s / 2))
    return paces


def run_sampler(settings: SamplerSettings, sink: Sink, stop: Stop, clock: Clock | None = None) -> SamplerExit:
    """Sample until `stop` is set or the process must be replaced; lines go to the sink from the calling thread.

    With `settings.simulate` the simulated GPUs are put in the driver's place first; bad settings raise Rejected.
    """
    if settings.simulate is not None:
        start_simulation(settings.simulate, settings.node)
    sampler = Sampler(settings, sink, clock)
    paces = _host_readings(settings, sampler)
    period_ns = int(settings.fast_interval_s * 1e9)
    rng = random.Random(settings.node)  # noqa: S311  # phase jitter, nothing secret
    due_ns = sampler.clock.monotonic_ns()
    try:
        while sampler.exit is None:
            jitter_ns = int(rng.random() * settings.jitter * period_ns)
            wait_s = (due_ns + jitter_ns - sampler.clock.monotonic_ns()) / 1e9
            if stop.wait(max(0.0, wait_s)):
                break
            sampler.tick()
            due_ns += period_ns
            late = (sampler.clock.monotonic_ns() - due_ns) // period_ns
            if late > 0:
                sampler.ticks_missed += late
                due_ns += late * period_ns
    finally:
        for pace in paces:
            pace.close()
        sampler.close()
        sampler.crew.close()
    return sampler.exit or SamplerExit.STOPPED
