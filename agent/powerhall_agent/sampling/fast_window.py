"""The 10 Hz window of one GPU: energy, extremes of power, power steps, and the ring of the flight recorder.

Ten times a second a reading is only appended (`add`); once a second all of them are processed together (`drain`). That
costs a fraction of processing each reading, because a thread that has just been woken runs with cold caches.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

from powerhall_agent.base.sensor_log import SensorLog
from powerhall_agent.base.trusted_counter import LEAST_SHARE
from powerhall_agent.sampling.energy import MOST_MW, EnergyAccumulator
from powerhall_agent.sampling.flight_recorder import FlightRecorder, RecordedSample

__all__ = ["MAX_PENDING", "FastEvents", "FastWindow", "Reading"]

_POWER_STEP: Final = 0.3
"""Share of the power limit that counts as a step."""
_HISTORY: Final = 10
_STALE_NS: Final = 5_000_000_000
_LEAST_SLOPE_MW: Final = 20_000
"""A counter that rises more slowly contradicts no power."""
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

    def __init__(
        self, energy: EnergyAccumulator, recorder: FlightRecorder | None, sensors: SensorLog | None = None
    ) -> None:
        """Continue from energy totals; without a recorder nothing is kept at full rate."""
        self.energy, self._recorder = energy, recorder
        self._sensors = sensors or SensorLog()
        self.power_w: float | None = None
        """The last power; None before the first and after five seconds without one."""
        self.most_mw = MOST_MW
        """The highest power that is believed."""
        self._power_ns = 0
        self.limit_w: float | None = None
        """The power limit, from which the size of a power step follows."""
        self.pending: list[Reading] = []
        """Readings that wait to be processed; the hot path appends here directly instead of calling `add`."""
        self._recent_mw: deque[int] = deque(maxlen=_HISTORY)
        self._low_mw = self._high_mw = self._sum_mw = self._count = 0
        self._was_low = False
        """Whether the newest power was far below the slope of the energy counter."""

    @property
    def has_lost_power(self) -> bool:
        """Whether the GPU once showed its power and does no more."""
        return self.power_w is None and self._power_ns > 0

    def add(self, reading: Reading) -> None:
        """Append a reading."""
        self.pending.append(reading)

    def shift(self, by_ms: int) -> None:
        """Move the timestamps of the waiting readings and of the recorder: the wall clock was set."""
        self.pending[:] = [(at_ns, time_ms + by_ms, mw, mj) for at_ns, time_ms, mw, mj in self.pending]
        if self._recorder is not None:
            self._recorder.shift(by_ms)

    def drain(self) -> FastEvents:
        """Process the pending readings."""
        found = FastEvents()
        if not self.pending:
            return found
        at_ns, stamps_ms, readings_mw, counters_mj = zip(*self.pending, strict=True)
        self.pending.clear()
        powers_mw: Sequence[int | None] = readings_mw
        known = [power for power in powers_mw if power is not None]
        if known and (max(known) > self.most_mw or min(known) < 0):
            powers_mw = self._believable(powers_mw)
            known = [power for power in powers_mw if power is not None]
        if known and LEAST_SHARE * min(known) < self.most_mw:
            powers_mw = self._beside_counter(at_ns, powers_mw, counters_mj)
            known = [power for power in powers_mw if power is not None]
        energies_mj, restarts = self.energy.add_many(at_ns, powers_mw, counters_mj)
        found.restarts = [stamps_ms[place] for place in restarts]
        self._account(len(known))
        if known:
            self._power_ns = at_ns[-1]
        elif at_ns[-1] - self._power_ns > _STALE_NS:
            self.power_w = None
        if len(known) != len(powers_mw):
            whole = [power is not None for power in powers_mw]
            stamps_ms, energies_mj = tuple(compress(stamps_ms, whole)), list(compress(energies_mj, whole))
        if known:
            self._note(known)
            if self._recorder is not None:
                self._find_steps(stamps_ms, known, found.steps)
                self._recorder.extend(stamps_ms, known, energies_mj)
        return found

    def _believable(self, powers_mw: Sequence[int | None]) -> Sequence[int | None]:
        """Drop powers that the GPU cannot draw: there is None in their place."""
        bad = [power for power in powers_mw if power is not None and not 0 <= power <= self.most_mw]
        side = f"above {self.most_mw / 1000.0:,.0f} W" if bad[-1] > 0 else "below 0 W"
        self._sensors.drop("power_w", f"{bad[-1] / 1000.0:,.0f} W is {side}", len(bad))
        return [power if power is not None and 0 <= power <= self.most_mw else None for power in powers_mw]

    def _beside_counter(
        self, at_ns: Sequence[int], powers_mw: Sequence[int | None], counters_mj: Sequence[int | None]
    ) -> Sequence[int | None]:
        """Drop powers of which the energy counter rises a hundred times as fast, before and after them.

        Such a power is in another unit, or no reading at all; one beside a step of load agrees with one of its sides.
        """
        counter = self.energy.counter
        slopes = _slopes((counter.raw_ns, *at_ns), (counter.raw, *counters_mj), counter.most_per_s)
        if counter.raw is None and len(slopes) > 1:
            slopes[0] = slopes[1]  # nothing is known of the time before the first reading
        kept, low = list(powers_mw), self._was_low
        for place, power_mw in enumerate(powers_mw):
            if power_mw is None:
                continue
            after = slopes[place + 1] if place + 1 < len(powers_mw) else slopes[place] if low else 0
            slope = min(slopes[place], after)
            low = LEAST_SHARE * power_mw < slopes[place]
            if LEAST_SHARE * power_mw < slope:
                kept[place] = None
                why = f"{power_mw / 1000.0:g} W, while the energy counter rises by {slope / 1000.0:,.0f} W"
                self._sensors.drop("power_w", why)
        self._was_low = low
        return kept

    def _account(self, known: int) -> None:
        """Count what was believed, and the readings of the energy counter that were not."""
        dropped, reason = self.energy.take_dropped()
        if dropped:
            self._sensors.drop("energy_j", reason, dropped)
        if self._sensors.watched:
            if known:
                self._sensors.believe("power_w", known)
            if not dropped:
                self._sensors.believe("energy_j", known)

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


def _slopes(times_ns: Sequence[int], counters_mj: Sequence[int | None], most_mw: int) -> list[int]:
    """Return how fast a counter rose between readings, in mW; 0 where that is unknown, impossible or little."""
    found = []
    for step in range(len(times_ns) - 1):
        before, after, passed_ns = counters_mj[step], counters_mj[step + 1], times_ns[step + 1] - times_ns[step]
        rise = 0 if before is None or after is None or passed_ns <= 0 else (after - before) * 1_000_000_000 // passed_ns
        found.append(rise if _LEAST_SLOPE_MW <= rise <= most_mw else 0)
    return found
