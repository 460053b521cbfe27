"""The clocks that the agent reads, and timestamps that strictly rise."""

import time
from typing import Final, Protocol

import msgspec

__all__ = ["Clock", "Moment", "Stamper", "SystemClock"]

_SLEW: Final = 0.5


class Clock(Protocol):
    """The two clocks of a machine, in nanoseconds."""

    def monotonic_ns(self) -> int:
        """Return the monotonic clock."""

    def time_ns(self) -> int:
        """Return the wall clock since the epoch."""


class SystemClock:
    """The clocks of this machine; they are read at every tick, so no Python function wraps them."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    time_ns = staticmethod(time.time_ns)


class Moment(msgspec.Struct, frozen=True, gc=False):
    """The time of a tick by the monotonic clock, and the timestamp of its records."""

    mono_ns: int
    ms: int


class Stamper:
    """Makes millisecond timestamps that strictly rise, however the wall clock is set.

    After the wall clock is set back, timestamps continue from the last one at half the pace of the monotonic clock
    until the wall clock has caught up, so that no older point is overwritten. A step forward is followed at once.
    """

    def __init__(self, last_ms: int = 0) -> None:
        """Continue after `last_ms`, the last timestamp of an earlier run."""
        self.last_ms = last_ms
        self._last_mono_ns: int | None = None

    def stamp(self, mono_ns: int, wall_ns: int) -> int:
        """Return the next timestamp in milliseconds since the epoch."""
        wall_ms = wall_ns // 1_000_000
        elapsed_ms = 0 if self._last_mono_ns is None else (mono_ns - self._last_mono_ns) // 1_000_000
        self._last_mono_ns = mono_ns
        if wall_ms > self.last_ms:
            self.last_ms = wall_ms
        else:
            self.last_ms += max(1, int(elapsed_ms * _SLEW))
        return self.last_ms

    def moment(self, clock: Clock) -> Moment:
        """Return the next timestamp by a clock."""
        mono_ns, wall_ns = clock.monotonic_ns(), clock.time_ns()
        return Moment(mono_ns, self.stamp(mono_ns, wall_ns))
