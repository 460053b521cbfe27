"""The gateway: reads every device at its own interval, validates its readings, and writes lines.

Invariants: every device has one thread, so a device that hangs delays no other; while a device does not answer, each
of its points gets quality 0 at the interval of the device, without a value; a value is written only with quality 1.
"""

import math
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from powerhall.runtime.errors import ConfigError, Retryable
from powerhall.runtime.log import Log
from powerhall_agent.base.clock import Clock, Stamper, SystemClock
from powerhall_agent.base.encoder import Series
from powerhall_agent.base.sink import Sink
from powerhall_agent.facility.device import Device
from powerhall_agent.facility.points import DeviceMap, Point
from powerhall_agent.facility.reader import Reader, ReadResult
from powerhall_agent.facility.validation import CounterState, PointValidator

__all__ = ["DevicePoller", "DeviceStatus", "Gateway"]

_BACKOFF_MAX_S = 60.0
_GOOD, _BAD = 1.0, 0.0


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """Outcome of the last read of a device."""

    name: str
    good: int
    bad: int
    problem: str
    """Why there is no reading at all, "" when there are some."""
    points: Mapping[str, str]
    """Why single points have no value."""


class Opener(Protocol):
    """Makes the reader of a device."""

    def __call__(self, device: Device, points: DeviceMap, /) -> Reader:
        """Return the reader; nothing is sent yet."""
        ...


class DevicePoller:
    """Polls one device: its thread, its reader, the validators of its points."""

    def __init__(
        self,
        site: str,
        device: Device,
        points: DeviceMap,
        reader: Reader,
        *,
        sink: Sink,
        log: Log,
        counters: Mapping[str, CounterState],
        clock: Clock,
    ) -> None:
        self.device, self._reader, self._sink, self._log, self._clock = device, reader, sink, log, clock
        tags = {"site": site, "hall": device.hall, "device": device.name}
        self._validators = {point.name: self._validator(point, counters.get(point.name)) for point in points.points}
        self._series = {name: Series("facility", {**tags, "point": name}) for name in self._validators}
        self._weather = Series("weather", {"site": site}) if device.weather else None
        self._stamper = Stamper()
        self._lock = threading.Lock()
        self._busy_since_s: float | None = None
        self._written_s = self._now_s()
        self._failures = 0
        self._optional = {point.name for point in points.points if point.optional}
        """Points that the device may lack: those that it never showed are no problem."""
        self._was_read = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"facility-{device.name}", daemon=True)
        self.state = DeviceStatus(device.name, 0, len(self._validators), "not read yet", {})

    def start(self) -> None:
        """Start reading at a random time within the first interval."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after the read under way."""
        self._stop.set()

    def join(self, seconds: float) -> None:
        """Wait for the thread; one that hangs is left behind and ends with the process."""
        if self._thread.is_alive():
            self._thread.join(max(0.0, seconds))

    def poll(self) -> None:
        """Read once, validate and write."""
        self._busy_since_s = self._now_s()
        try:
            answer, problem = self._reader.read(), ""
        except (Retryable, ConfigError) as error:
            answer, problem = ReadResult(), str(error)
        except Exception as error:  # noqa: BLE001 - logged and counted; one device's odd answer must not end its thread
            answer, problem = ReadResult(), f"fault: {error!r}"
        self._busy_since_s = None
        self._write(answer, problem)
        self._failures = self._failures + 1 if problem else 0

    def once(self) -> None:
        """Read once and end the connection."""
        self.poll()
        self._reader.close()

    def watch(self) -> None:
        """Mark the points as stale when the device does not answer; called often, from another thread."""
        now_s, since_s, device = self._now_s(), self._busy_since_s, self.device
        patience_s = max(device.interval_s, 2 * device.timeout_s)
        silent = since_s is not None and now_s - since_s >= patience_s
        waiting = since_s is None and self._failures > 0
        if (silent or waiting) and now_s - self._written_s >= device.interval_s:
            self._write(
                ReadResult(), f"no answer for {now_s - (since_s or now_s):.0f} s" if silent else self.state.problem
            )

    def counters(self) -> dict[str, CounterState]:
        """Return the counters' sums, to be kept over a restart."""
        with self._lock:
            return {name: self._state(v, v.counter) for name, v in self._validators.items() if v.counter is not None}

    def _run(self) -> None:
        pause_s = random.uniform(0.0, min(self.device.interval_s, 5.0))  # noqa: S311 - spreads the first requests
        while not self._stop.wait(pause_s):
            begin_s = self._now_s()
            self.poll()
            slow_s = self.device.interval_s * 2.0 ** min(self._failures, 10)
            period_s = min(slow_s, max(self.device.interval_s, _BACKOFF_MAX_S)) if self._failures else slow_s
            pause_s = max(0.0, begin_s + period_s - self._now_s())
        self._reader.close()

    def _write(self, answer: ReadResult, problem: str) -> None:
        with self._lock:
            now_s = self._now_s()
            time_ms = self._stamper.stamp(self._clock.monotonic_ns(), self._clock.time_ns())
            self._written_s = now_s
            values: dict[str, float] = {}
            whys: dict[str, str] = {}
            starts = any(v.falls_to_zero(answer.values.get(name)) for name, v in self._validators.items())
            for name, validator in self._validators.items():
                raw = answer.values.get(name)
                if raw == 0.0 and starts and not validator.point.counts:
                    whys[name] = "implausible: 0 beside a counter that fell to 0: the device starts"
                    continue
                if raw is None and name in self._optional and not problem:
                    continue
                if raw is None:
                    whys[name] = problem or answer.problems.get(name, "the device left it out")
                    continue
                found = validator.take(raw, now_s)
                if found.value is None:
                    whys[name] = found.why
                else:
                    values[name] = found.value
                    self._optional.discard(name)
            self._log_problem(problem, whys)
            self._was_read = True
            self.state = DeviceStatus(self.device.name, len(values), len(whys), problem, whys)
            self._sink.write(self._encode(values, time_ms))

    def _encode(self, values: Mapping[str, float], time_ms: int) -> bytes:
        lines = []
        for name, series in self._series.items():
            if name in self._optional:
                continue
            value = values.get(name)
            fields = {"quality": _BAD} if value is None else {"value": value, "quality": _GOOD}
            lines.append(series.encode(fields, time_ms))
        if self._weather is not None:
            air = {name: values[name] for name in ("dry_bulb_c", "wet_bulb_c") if name in values}
            lines.append(self._weather.encode(air, time_ms))
        return b"".join(lines)

    def _log_problem(self, problem: str, whys: Mapping[str, str]) -> None:
        """Log what has changed since the last read."""
        name, before = self.device.name, self.state
        if problem:
            self._log.warning("device_silent", key=name, device=name, detail=problem)
            return
        if before.problem and self._was_read:
            self._log.forget("device_silent", key=name)
            self._log.info("device_back", device=name)
        for point, why in whys.items():
            self._log.warning("point_refused", key=f"{name}/{point}", device=name, point=point, detail=why)
        for point in before.points.keys() - whys.keys():
            self._log.forget("point_refused", key=f"{name}/{point}")

    def _validator(self, point: Point, counter: CounterState | None) -> PointValidator:
        """Make a point's validator; a counter of an earlier run can only have risen since it was read."""
        if counter is None or not counter.at_s:
            return PointValidator(point, counter)
        return PointValidator(point, counter, min(self._now_s(), counter.at_s - self._boot_s()))

    def _state(self, validator: PointValidator, counter: CounterState) -> CounterState:
        at_s = 0.0 if math.isinf(validator.counted_s) else self._boot_s() + validator.counted_s
        return CounterState(counter.raw, counter.total, at_s)

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    def _boot_s(self) -> float:
        """Return what the wall clock shows at 0 of the monotonic clock."""
        return (self._clock.time_ns() - self._clock.monotonic_ns()) / 1e9


class Gateway:
    """The pollers of all devices of a site."""

    def __init__(
        self,
        site: str,
        devices: Sequence[Device],
        maps: Mapping[str, DeviceMap],
        opener: Opener,
        *,
        sink: Sink,
        log: Log,
        counters: Mapping[str, Mapping[str, CounterState]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        known, clock = counters or {}, clock or SystemClock()
        self.pollers = [
            DevicePoller(
                site,
                device,
                maps[device.name],
                opener(device, maps[device.name]),
                sink=sink,
                log=log,
                counters=known.get(device.name, {}),
                clock=clock,
            )
            for device in devices
        ]

    def start(self) -> None:
        """Start every device's thread."""
        for poller in self.pollers:
            poller.start()

    def watch(self) -> None:
        """Mark devices that hang; call it several times a second."""
        for poller in self.pollers:
            poller.watch()

    def once(self) -> None:
        """Read every device once, in parallel; one that hangs is given up after its timeout."""
        threads = [threading.Thread(target=poller.once, daemon=True) for poller in self.pollers]
        for thread in threads:
            thread.start()
        patience_s = max(max(2 * s.device.timeout_s, s.device.interval_s) for s in self.pollers)
        end_s = time.monotonic() + patience_s + 1.0
        for thread in threads:
            thread.join(max(0.0, end_s - time.monotonic()))
        self.watch()

    def stop(self, within_s: float) -> None:
        """End the threads of all devices that answer in time."""
        for poller in self.pollers:
            poller.stop()
        end_s = time.monotonic() + within_s
        for poller in self.pollers:
            poller.join(end_s - time.monotonic())

    def states(self) -> list[DeviceStatus]:
        """Return the outcome of the last read of every device."""
        return [poller.state for poller in self.pollers]

    def counters(self) -> dict[str, dict[str, CounterState]]:
        """Return the sums of all counters, by device and point."""
        return {poller.device.name: found for poller in self.pollers if (found := poller.counters())}
