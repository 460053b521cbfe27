"""The 10 Hz window of one GPU: energy, extremes of power, power steps, and the ring of the flight recorder.

Ten times a second a reading is only appended (`add`); once a second all of them are processed together (`drain`). That
costs a fraction of processing each reading, because a thread that has just been woken runs with cold caches.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

from powerhall_agent.sampling.energy import EnergyAccumulator
from powerhall_agent.sampling.flight_recorder import FlightRecorder, RecordedSample

__all__ = ["MAX_PENDING", "FastEvents", "FastWindow", "Reading"]

_POWER_STEP: Final = 0.3
"""Share of the power limit that counts as a step."""
_HISTORY: Final = 10
MAX_PENDING: Final = 100
"""Readings that may wait; then they are processed."""

Reading = tuple[int, int, int | None, int | None]
"""Time by the monotonic clock (ns), timestamp (ms), power (mW), the driver's energy counter (mJ)."""


@dataclass(slots=True)
class FastEvents:
    """Events in the processed readings; times are timestamps in ms."""

    restarts: list[int] = field(default_factory=list)
    """Restarts of the driver's energy counter."""
    steps: list[tuple[int, float]] = field(default_factory=list)
    """Steps of power: time and size in W."""


class FastWindow:
    """The fast readings of one GPU."""

    def __init__(self, energy: EnergyAccumulator, recorder: FlightRecorder | None) -> None:
        """Continue from energy totals; without a recorder nothing is kept at full rate."""
        self.energy, self._recorder = energy, recorder
        self.power_w: float | None = None
        """The last power."""
        self.limit_w: float | None = None
        """The power limit, from which the size of a power step follows."""
        self.pending: list[Reading] = []
        """Readings that wait to be processed; the hot path appends here directly instead of calling `add`."""
        self._recent_mw: deque[int] = deque(maxlen=_HISTORY)
        self._low_mw = self._high_mw = self._sum_mw = self._count = 0

    def add(self, reading: Reading) -> None:
        """Append a reading."""
        self.pending.append(reading)

    def drain(self) -> FastEvents:
        """Process the pending readings."""
        found = FastEvents()
        if not self.pending:
            return found
        at_ns, stamps_ms, powers_mw, counters_mj = zip(*self.pending, strict=True)
        self.pending.clear()
        energies_mj, restarts = self.energy.add_many(at_ns, powers_mw, counters_mj)
        found.restarts = [stamps_ms[place] for place in restarts]
        known = [power for power in powers_mw if power is not None]
        if len(known) != len(powers_mw):
            whole = [power is not None for power in powers_mw]
            stamps_ms, energies_mj = tuple(compress(stamps_ms, whole)), list(compress(energies_mj, whole))
        if known:
            self._note(known)
            if self._recorder is not None:
                self._find_steps(stamps_ms, known, found.steps)
                self._recorder.extend(stamps_ms, known, energies_mj)
        return found

    def _note(self, powers_mw: list[int]) -> None:
        low_mw, high_mw = min(powers_mw), max(powers_mw)
        self._low_mw = min(self._low_mw, low_mw) if self._count else low_mw
        self._high_mw = max(self._high_mw, high_mw)
        self._sum_mw += sum(powers_mw)
        self._count += len(powers_mw)
        self.power_w = powers_mw[-1] / 1000.0

    def _find_steps(self, stamps_ms: Sequence[int], powers_mw: Sequence[int], steps: list[tuple[int, float]]) -> None:
        """Compare each power with that of a second before; after a step the comparison starts again."""
        recent = self._recent_mw
        step_mw = _POWER_STEP * 1000.0 * (self.limit_w or 0.0)
        lowest, highest = min(powers_mw), max(powers_mw)
        if recent:
            lowest, highest = min(lowest, *recent), max(highest, *recent)
        if not step_mw or highest - lowest <= step_mw:
            recent.extend(powers_mw)
            return
        for time_ms, power_mw in zip(stamps_ms, powers_mw, strict=True):
            if recent and abs(power_mw - recent[0]) > step_mw:
                steps.append((time_ms, (power_mw - recent[0]) / 1000.0))
                recent.clear()
            recent.append(power_mw)

    def interval(self) -> dict[str, float | str]:
        """Return power and energy since the last call, by field of the schema; call `drain` first."""
        fields: dict[str, float | str] = {}
        if self._count:
            fields["power_w"] = round(self._sum_mw / self._count / 1000.0, 3)
            fields["power_min_w"], fields["power_max_w"] = self._low_mw / 1000.0, self._high_mw / 1000.0
        self._low_mw = self._high_mw = self._sum_mw = self._count = 0
        if self.energy.raw_mj is not None:
            fields["energy_j"] = self.energy.counter_mj / 1000.0
        if self.power_w is not None:
            fields["energy_integral_j"] = self.energy.integral_mj / 1000.0
        return fields

    def record(self, time_ms: int) -> bool:
        """Start or extend a recording around this time; False when none is made."""
        return self._recorder is not None and self._recorder.trigger(time_ms)

    def take_recorded(self) -> list[RecordedSample]:
        """Return the next samples of a recording."""
        return [] if self._recorder is None else self._recorder.take()
