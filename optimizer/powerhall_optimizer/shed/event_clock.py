"""The time by which shed events start and end: the wall clock, checked against a clock that nobody sets.

A wall clock that is wrong for a while must neither end a limit nor lose an announced event. So a second time is kept,
the steady time: the wall clock's at the first start, plus what CLOCK_BOOTTIME has counted since, over restarts of the
service and of the host too (a host that was off has passed more: the steady time is then the earliest that it can be).

* While both agree within `SKEW_S`, the steady time follows the wall clock slowly: clocks are slewed, not set.
* Where they differ the wall clock was set, or set while the service was away. That is an alarm. Events end when both
  times have passed their end. They start by whichever comes first: rather `EARLY_S` early than late, and by a wall
  clock that is further ahead after it has kept its new time for `SETTLES_S`. After `BELIEVED_S` it is believed.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.files import replace_file
from powerhall.runtime.log import Log
from powerhall.runtime.settings import read_json

__all__ = ["BELIEVED_S", "EARLY_S", "SETTLES_S", "SKEW_S", "EventClock", "EventTimes", "boot_s"]

SKEW_S: Final = 2.0
EARLY_S: Final = 600.0
SETTLES_S: Final = 60.0
BELIEVED_S: Final = 3600.0
_FORGETS_S: Final = 86_400.0
_STEP_S: Final = 1.0
_SLEW: Final = 1e-3
"""The steady time follows by at most this share of the time; clocks are slewed by at most half of it."""
_KEEP_S: Final = 60.0


def boot_s() -> float:
    """Return the seconds since the boot, suspended ones too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class EventTimes:
    """What time it is, in s since 1970: `now_s` is the best guess; events start, and have ended, by the other two.

    `over_s` is a time that has passed unless a settled clock is wrong. `may_forget` is false for a day after a step.
    """

    now_s: float
    starts_s: float
    ends_s: float
    over_s: float
    may_forget: bool


class _Kept(msgspec.Struct, frozen=True):
    """The file beside the state: the steady time, and CLOCK_BOOTTIME at the same moment."""

    time_s: float
    boot_s: float


class EventClock:
    """Reads both clocks; safe with several threads."""

    def __init__(
        self, kept: Path, log: Log, wall: Callable[[], float] = time.time, steady: Callable[[], float] = boot_s
    ) -> None:
        """`kept` is the file in which the time outlives restarts; `steady` counts seconds and is never set."""
        self._path, self._log, self._wall, self._steady = kept, log, wall, steady
        self._lock = threading.Lock()
        at_s = self._read_s = steady()
        self._reference_s = self._offset_s = wall() - at_s
        self._settled_s = self._believed_s = self._forgets_s = -math.inf
        self._kept_s = -math.inf
        self.problem = ""
        """One line while wall clock and steady time differ, else ""."""
        before = self._before()
        if before is None:
            return
        is_same_boot = at_s >= before.boot_s
        self._offset_s = before.time_s + (at_s - before.boot_s if is_same_boot else at_s) - at_s
        if abs(self._reference_s - self._offset_s) > SKEW_S:
            self._doubt(at_s)
            if not is_same_boot:
                self._settled_s = at_s  # the host was off for a while: its clock is the best guess
        self._tell()

    def read(self) -> EventTimes:
        """Compare the clocks and return the times."""
        with self._lock:
            at_s = self._steady()
            offset_s = self._wall() - at_s
            self._compare(offset_s, at_s)
            steady_s, wall_s = at_s + self._offset_s, at_s + offset_s
            settled_s = wall_s if at_s >= self._settled_s else steady_s
            self._keep(at_s)
            starts_s = max(steady_s, settled_s, wall_s if wall_s <= steady_s + EARLY_S else steady_s)
            over_s = min(steady_s, settled_s)
            return EventTimes(settled_s, starts_s, min(wall_s, steady_s), over_s, at_s >= self._forgets_s)

    def _compare(self, offset_s: float, at_s: float) -> None:
        step_s = offset_s - self._reference_s
        away_s = offset_s - self._offset_s
        is_set = abs(step_s) > _STEP_S
        if is_set:
            self._reference_s = offset_s
        if abs(step_s) > SKEW_S:
            detail = "events end when the time that has passed says so too"
            self._log.error("clock_step", step_s=round(step_s, 1), detail=detail)
        if abs(away_s) <= SKEW_S:
            most_s = _SLEW * max(0.0, at_s - self._read_s)
            self._offset_s += max(-most_s, min(most_s, away_s))
            self._settled_s = -math.inf
        elif is_set or not self.problem:
            self._reference_s = offset_s
            self._doubt(at_s)
        elif at_s >= self._believed_s:
            self._offset_s = offset_s
        self._read_s = at_s
        self._tell()

    def _doubt(self, at_s: float) -> None:
        self._settled_s, self._believed_s, self._forgets_s = at_s + SETTLES_S, at_s + BELIEVED_S, at_s + _FORGETS_S

    def _tell(self) -> None:
        away_s = self._reference_s - self._offset_s
        self.problem = ""
        if abs(away_s) > SKEW_S:
            self.problem = (
                f"this host's clock is {abs(away_s):.0f} s {'ahead of' if away_s > 0 else 'behind'} the time that has "
                "passed: set it right (`chronyc tracking`); until then, or for an hour, no event ends by it alone"
            )

    def _before(self) -> _Kept | None:
        try:
            kept = read_json(self._path, _Kept) if self._path.exists() else None
        except PowerhallError as error:
            self._log.warning("shed_clock", detail=f"{error}; the wall clock counts")
            return None
        return kept if kept is not None and math.isfinite(kept.time_s) and math.isfinite(kept.boot_s) else None

    def _keep(self, at_s: float) -> None:
        if at_s - self._kept_s < _KEEP_S:
            return
        self._kept_s = at_s
        try:
            replace_file(self._path, msgspec.json.encode(_Kept(at_s + self._offset_s, at_s)))
        except OSError as error:
            self._log.warning("shed_clock", key="keep", detail=f"{self._path}: cannot write: {error.strerror}")
