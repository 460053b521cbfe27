"""The clocks that the agent reads, and timestamps that rise and follow the wall clock."""

import time
from typing import Final, NamedTuple, Protocol

import msgspec

__all__ = [
    "CLOCK_STEPPED",
    "MOST_AHEAD_MS",
    "SOFTWARE_MS",
    "Clock",
    "ClockStep",
    "Moment",
    "Stamper",
    "SystemClock",
    "step_text",
]

CLOCK_STEPPED: Final = "clock_stepped"
"""Kind of the event of a step; its code is the step in s, 0 where it is not known."""

_SLEW: Final = 0.5
MOST_AHEAD_MS: Final = 60_000
"""How far a timestamp may be ahead of the wall clock."""
SOFTWARE_MS: Final = 1_735_689_600_000
"""2025-01-01: no clock that is right shows an earlier time to this software."""


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


class ClockStep(NamedTuple):
    """A correction of the wall clock that stamps follow at once; the stamps before it are off by as much."""

    by_ms: int
    """How far the clock was set, negative for back; 0 where that is not known (the last run was before a reboot)."""
    before_ms: int
    """The last timestamp by the clock as it was."""

    @property
    def old_is_wrong(self) -> bool:
        """Whether it is the clock before the step that was wrong, and it is known by how much.

        A clock that is set forward may have stood still with its machine (a paused virtual machine): then the stamps
        before were right, unless they were of a time before this software.
        """
        return self.by_ms < 0 or (self.by_ms > 0 and self.before_ms < SOFTWARE_MS)


class Stamper:
    """Makes millisecond timestamps that rise, and are never more than a minute ahead of the wall clock.

    After the wall clock was set back by up to a minute, timestamps continue from the last one at half the pace of the
    monotonic clock until the wall clock has caught up, so that no older point is overwritten. A larger step back, and
    any step forward, is followed at once; steps of more than a minute are kept for `take_step`.
    """

    def __init__(self, last_ms: int = 0, last_mono_ns: int | None = None) -> None:
        """Continue after `last_ms`, the last timestamp of an earlier run, made at `last_mono_ns` in the same boot."""
        self.last_ms = last_ms
        self._last_mono_ns = last_mono_ns
        self._step: ClockStep | None = None

    def stamp(self, mono_ns: int, wall_ns: int) -> int:
        """Return the next timestamp in milliseconds since the epoch."""
        wall_ms = wall_ns // 1_000_000
        known = self._last_mono_ns is not None and mono_ns >= self._last_mono_ns
        elapsed_ms = (mono_ns - (self._last_mono_ns or 0)) // 1_000_000 if known else 0
        self._last_mono_ns = mono_ns
        by_ms = wall_ms - self.last_ms - elapsed_ms
        back = self.last_ms - wall_ms >= MOST_AHEAD_MS
        if back or (known and by_ms > MOST_AHEAD_MS):
            self._step = ClockStep(by_ms if known else 0, self.last_ms)
        if back or wall_ms > self.last_ms:
            self.last_ms = wall_ms
        else:
            most_ms = wall_ms + MOST_AHEAD_MS - self.last_ms
            self.last_ms += max(1, min(int(elapsed_ms * _SLEW), most_ms))
        return self.last_ms

    def take_step(self) -> ClockStep | None:
        """Return the step that the last timestamp followed, once."""
        step, self._step = self._step, None
        return step

    def moment(self, clock: Clock) -> Moment:
        """Return the next timestamp by a clock."""
        mono_ns, wall_ns = clock.monotonic_ns(), clock.time_ns()
        return Moment(mono_ns, self.stamp(mono_ns, wall_ns))


def step_text(step: ClockStep, now_ms: int) -> str:
    """Describe a step for people."""
    before, now = (time.strftime("%F %T", time.gmtime(ms / 1000)) for ms in (step.before_ms, now_ms))
    if not step.by_ms:
        return f"the clock shows {now} UTC; before this boot it was up to {before} UTC, so that those times are wrong"
    text = f"the clock was set by {step.by_ms / 1000:+,.1f} s from {before} to {now} UTC"
    return f"{text}; what waits is stamped anew" if step.old_is_wrong else text
