"""The flight recorder of one GPU: a ring of full-rate samples, shipped around a trigger.

A trigger ships the minute before it and the minute after it; triggers within that minute extend it. A GPU may start a
recording six times an hour. Samples are shipped in small portions, so that a recording does not flood the spool.
"""

from array import array
from collections.abc import Sequence
from typing import Final

__all__ = ["FlightRecorder", "RecordedSample"]

_PORTION: Final = 150
_PER_HOUR: Final = 6
_HOUR_MS: Final = 3_600_000

RecordedSample = tuple[int, int, int]
"""Time in ms, power in mW, energy in mJ."""


class FlightRecorder:
    """A ring of `ring_s` seconds at `rate_hz`, with `around_s` seconds shipped on each side of a trigger."""

    def __init__(self, ring_s: float = 120.0, rate_hz: float = 10.0, around_s: float = 60.0) -> None:
        """Allocate the ring."""
        self._size = max(1, int(ring_s * rate_hz))
        self._times = array("q", bytes(8 * self._size))
        self._powers = array("q", bytes(8 * self._size))
        self._energies = array("q", bytes(8 * self._size))
        self._written = 0
        self._shipped = 0
        self._around_ms = int(around_s * 1000)
        self._from_ms = 0
        self._until_ms = 0
        self._starts: list[int] = []
        self.refused = 0

    def add(self, time_ms: int, power_mw: int, energy_mj: int) -> None:
        """Put a sample into the ring."""
        place = self._written % self._size
        self._times[place], self._powers[place], self._energies[place] = time_ms, power_mw, energy_mj
        self._written += 1

    def extend(self, times_ms: Sequence[int], powers_mw: Sequence[int], energies_mj: Sequence[int]) -> None:
        """Put samples into the ring, oldest first."""
        for time_ms, power_mw, energy_mj in zip(times_ms, powers_mw, energies_mj, strict=True):
            self.add(time_ms, power_mw, energy_mj)

    def trigger(self, time_ms: int) -> bool:
        """Start or extend a recording; False when this GPU has reached its recordings per hour."""
        if time_ms > self._until_ms:
            self._starts = [start for start in self._starts if start > time_ms - _HOUR_MS]
            if len(self._starts) >= _PER_HOUR:
                self.refused += 1
                return False
            self._starts.append(time_ms)
            self._from_ms = time_ms - self._around_ms
        self._until_ms = time_ms + self._around_ms
        return True

    def shift(self, by_ms: int) -> None:
        """Move the times of all samples and of a recording under way: the wall clock was set."""
        self._times = array("q", [time_ms + by_ms if time_ms else 0 for time_ms in self._times])
        self._from_ms += by_ms if self._from_ms else 0
        self._until_ms += by_ms if self._until_ms else 0
        self._starts = [start_ms + by_ms for start_ms in self._starts]

    def take(self) -> list[RecordedSample]:
        """Return the next samples to ship, at most a portion, oldest first."""
        if not self._until_ms:
            return []
        self._shipped = max(self._shipped, self._written - self._size)
        taken: list[RecordedSample] = []
        while self._shipped < self._written and len(taken) < _PORTION:
            place = self._shipped % self._size
            time_ms = self._times[place]
            if time_ms > self._until_ms:
                break
            self._shipped += 1
            if time_ms >= self._from_ms:
                taken.append((time_ms, self._powers[place], self._energies[place]))
        return taken
