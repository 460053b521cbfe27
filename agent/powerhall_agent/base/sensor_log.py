"""What became of implausible readings: counted by sensor, told as events, and a sensor that goes on so is suspect.

One log per GPU and one for the host. An event is told at the first dropped reading of a row, at most once a minute per
sensor; ten in a row make the sensor suspect, ten believed in a row trusted again.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from powerhall_agent.base.encoder import Fields

__all__ = ["IN_A_ROW", "SensorEvent", "SensorLog"]

IN_A_ROW: Final = 10
"""Dropped readings in a row that make a sensor suspect."""
_EVENT_EVERY_S: Final = 60.0


class SensorEvent(NamedTuple):
    """An event to be told: kind, number of dropped readings so far, text, severity."""

    kind: str
    code: int
    detail: str
    severity: int


@dataclass(slots=True)
class _Sensor:
    dropped: int = 0
    in_row: int = 0
    good_in_row: int = 0
    suspect: bool = False
    reason: str = ""
    told_s: float | None = None


class SensorLog:
    """The sensors of one device that have shown an implausible reading; used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sensors: dict[str, _Sensor] = {}
        self._events: list[SensorEvent] = []
        self._lock = threading.Lock()

    @property
    def watched(self) -> bool:
        """Whether any sensor has shown an implausible reading."""
        return bool(self._sensors)

    def drop(self, name: str, reason: str, count: int = 1) -> None:
        """Count readings of a sensor that were dropped; the reason is that of the last."""
        with self._lock:
            sensor = self._sensors.setdefault(name, _Sensor())
            sensor.dropped += count
            sensor.in_row += count
            sensor.good_in_row = 0
            sensor.reason = reason
            now_s = self._clock()
            if sensor.in_row == count and (sensor.told_s is None or now_s - sensor.told_s >= _EVENT_EVERY_S):
                sensor.told_s = now_s
                self._tell("implausible_reading", sensor, f"{name}: {reason}; dropped", 1)
            if sensor.in_row >= IN_A_ROW:
                self._suspect(name, sensor)

    def tell(self, event: SensorEvent) -> None:
        """Have an event told that is no matter of belief."""
        with self._lock:
            self._events.append(event)

    def doubt(self, name: str, reason: str) -> None:
        """Call a sensor suspect whose readings are possible but contradict another sensor."""
        with self._lock:
            sensor = self._sensors.setdefault(name, _Sensor())
            sensor.reason, sensor.good_in_row = reason, 0
            self._suspect(name, sensor)

    def believe(self, name: str, count: int = 1) -> None:
        """Count readings of a sensor that were believed."""
        if name not in self._sensors:
            return
        with self._lock:
            sensor = self._sensors[name]
            sensor.in_row = 0
            sensor.good_in_row += count
            if sensor.suspect and sensor.good_in_row >= IN_A_ROW:
                sensor.suspect = False
                self._tell("sensor_trusted", sensor, f"{name}: plausible again", 0)

    def _suspect(self, name: str, sensor: _Sensor) -> None:
        if not sensor.suspect:
            sensor.suspect = True
            self._tell("sensor_suspect", sensor, f"{name}: {sensor.reason}", 1)

    def _tell(self, kind: str, sensor: _Sensor, detail: str, severity: int) -> None:
        self._events.append(SensorEvent(kind, sensor.dropped, detail, severity))

    def take_events(self) -> list[SensorEvent]:
        """Remove and return the events that were not told yet."""
        if not self._events:
            return []
        with self._lock:
            events, self._events = self._events, []
        return events

    def report(self) -> Iterator[tuple[str, Fields]]:
        """Yield name and fields of `sensor` of every sensor that has ever shown an implausible reading."""
        with self._lock:
            rows = list(self._sensors.items())
        for name, sensor in rows:
            yield (
                name,
                {
                    "dropped_readings": float(sensor.dropped),
                    "suspect": 1.0 if sensor.suspect else 0.0,
                    "reason": sensor.reason,
                },
            )
