"""What the fast readings of one GPU come to: energy, the extremes of power, power steps, the flight recorder's ring.

Ten times a second a reading is only put aside (`add`); once a second all of them are worked off together (`digest`).
That costs a fraction of doing it reading by reading, because a thread that has just been woken runs with cold caches.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from powerhall_agent.energy import EnergyTruth
from powerhall_agent.recorder import Recorder, Sample

__all__ = ["Digest", "FastSet"]

_POWER_STEP: Final = 0.3
"""Of the power limit."""
_HISTORY: Final = 10
_MOST: Final = 100
"""Readings that are put aside at most."""


@dataclass(slots=True)
class Digest:
    """What happened since the last digest; times are timestamps in ms."""

    restarts: list[int] = field(default_factory=list)
    """When the driver's energy counter had restarted."""
    steps: list[tuple[int, float]] = field(default_factory=list)
    """When power had moved by a step, and by how many watts."""


class FastSet:
    """The fast readings of one GPU."""

    def __init__(self, energy: EnergyTruth, recorder: Recorder | None) -> None:
        """Go on from energy totals; without a recorder nothing is kept at full rate."""
        self.energy, self._recorder = energy, recorder
        self.power_w: float | None = None
        """The last power."""
        self.limit_w: float | None = None
        """The power limit, which says how much a power step is."""
        self._at_ns: list[int] = []
        self._stamps_ms: list[int] = []
        self._powers_mw: list[int | None] = []
        self._counters_mj: list[int | None] = []
        self._recent_mw: deque[int] = deque(maxlen=_HISTORY)
        self._low_mw = self._high_mw = self._sum_mw = self._count = 0

    def add(self, now_ns: int, time_ms: int, power_mw: int | None, counter_mj: int | None) -> bool:
        """Put a reading aside; `now_ns` is of the monotonic clock. True when it is time for a digest."""
        self._at_ns.append(now_ns)
        self._stamps_ms.append(time_ms)
        self._powers_mw.append(power_mw)
        self._counters_mj.append(counter_mj)
        return len(self._at_ns) >= _MOST

    def digest(self) -> Digest:
        """Work off what was put aside."""
        found = Digest()
        if not self._at_ns:
            return found
        stamps_ms, powers_mw = self._stamps_ms, self._powers_mw
        energies_mj, restarts = self.energy.add_many(self._at_ns, powers_mw, self._counters_mj)
        found.restarts = [stamps_ms[place] for place in restarts]
        self._at_ns, self._stamps_ms, self._powers_mw, self._counters_mj = [], [], [], []
        known = [power for power in powers_mw if power is not None]
        if len(known) != len(powers_mw):
            whole = [place for place, power in enumerate(powers_mw) if power is not None]
            stamps_ms = [stamps_ms[place] for place in whole]
            energies_mj = [energies_mj[place] for place in whole]
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

    def _find_steps(self, stamps_ms: list[int], powers_mw: list[int], steps: list[tuple[int, float]]) -> None:
        """Compare each power with the one a second before; after a step the comparison starts afresh."""
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
        """Return power and energy of the interval since the last call, by field of the schema; digest first."""
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
        """Start or extend a recording around this moment; False where there is none to be had."""
        return self._recorder is not None and self._recorder.trigger(time_ms)

    def shipment(self) -> list[Sample]:
        """Return the next samples of a recording."""
        return [] if self._recorder is None else self._recorder.take()
