"""The two clocks of a node as the capper uses them: one for lifetimes, one for signed times, and steps between them.

Lifetimes count on CLOCK_BOOTTIME, which no one sets and which counts a suspended host's time too. The wall clock is
compared with it: a difference that changes is a step.
"""

import time
from typing import Final

__all__ = ["AheadLeases", "ClockSteps", "boot_s"]

_STEP_S: Final = 1.0
_ROUND_S: Final = 60.0
"""Leases whose issue times differ by more are of different rounds of the planner."""
_SLOW_S: Final = 600.0
_MAX_AHEAD: Final = 16


def boot_s() -> float:
    """Return the seconds since the boot, suspended ones too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockSteps:
    """Finds steps of the wall clock of more than a second; slewing (500 ppm at most) is far below that."""

    def __init__(self) -> None:
        self._offset_s: float | None = None

    def step_s(self, wall_s: float, mono_s: float) -> float:
        """Return how far the wall clock was set since the last call, in s; 0 where it was not."""
        offset_s = wall_s - mono_s
        before, self._offset_s = self._offset_s, offset_s
        if before is None or abs(offset_s - before) < _STEP_S:
            return 0.0
        return offset_s - before


class AheadLeases:
    """Leases under a valid signature that were issued after this node's time: what they prove about the clocks.

    Either this node's clock is slow, or the planner's was ahead. A planner that was ahead for one round leaves leases
    of one moment; a slow node sees every round of the time that it lags. A lease with a higher number and an earlier
    issue time proves that the planner's clock was set back, so only leases after the one in question count.

    Whichever clock it is, its span counts from when it was first seen: a node whose clock is slow takes it later, and
    must not hold it longer for that.
    """

    def __init__(self) -> None:
        self._issued_s: dict[int, float] = {}
        self._seen_s: dict[tuple[int, float], float] = {}

    def note(self, sequence: int, issued_s: float, mono_s: float) -> None:
        """Remember a lease that was refused because it was issued after this node's time."""
        self._issued_s[sequence] = issued_s
        while len(self._issued_s) > _MAX_AHEAD:
            del self._issued_s[min(self._issued_s)]
        self._seen_s.setdefault((sequence, issued_s), mono_s)
        while len(self._seen_s) > _MAX_AHEAD:
            del self._seen_s[min(self._seen_s)]

    def seen_s(self, sequence: int, issued_s: float, mono_s: float) -> float:
        """Return when a lease was first seen, by the clock of lifetimes; `mono_s`, now, where it was not."""
        return self._seen_s.get((sequence, issued_s), mono_s)

    def proven_s(self, sequence: int, now_s: float) -> float:
        """Return the time that later leases than this one prove to have passed, by the planner's clock; 0: none.

        Two rounds ahead of `now_s` prove that this node is slow, however far. One proves it up to ten minutes ahead:
        a node that lags by more sees a second one.
        """
        ahead = [issued_s for number, issued_s in self._issued_s.items() if number > sequence and issued_s > now_s]
        if not ahead:
            return 0.0
        is_slow = max(ahead) - min(ahead) > _ROUND_S or max(ahead) - now_s <= _SLOW_S
        return max(ahead) if is_slow else 0.0
