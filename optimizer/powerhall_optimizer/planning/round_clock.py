"""Time of a round: what of `--seconds` each part gets, so that the whole round, publishing included, keeps it.

Counted work follows from the seconds and from sizes alone. Deadlines only guard it; they come earlier on a busy
machine, where what follows the solver takes longer, too: by the ratio of wall to CPU seconds seen so far.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from powerhall.runtime.log import Log
from powerhall_optimizer.problem.arrays import Problem

__all__ = ["RoundClock", "TimePlan"]

_PLACE_SHARE = 0.12
"""Part of a round's time that is kept for placing."""
_MOST_KEPT = 0.3
"""Part of the time that deadlines keep for what follows the solver, at most."""
_SLOWEST = 5.0
_LATE = 1.1
_LEAST_S = 3.0
"""Time of the solver, at least, where reading and preparing took long; in short rounds most of their seconds."""


@dataclass(frozen=True, slots=True)
class TimePlan:
    """Counted work of solver and placement in reference seconds, and their deadlines on the monotonic clock."""

    solve_work_s: float
    place_work_s: float
    solved_by_s: float
    placed_by_s: float


@dataclass(frozen=True, slots=True)
class RoundClock:
    """Begin of a round on the monotonic clock, CPU seconds of the process then, and how long the round may take."""

    began_s: float
    began_cpu_s: float
    seconds: float
    marks: list[tuple[str, float]] = field(default_factory=list)
    """Parts of the round that are done, and when each ended."""

    @staticmethod
    def start(seconds: float) -> "RoundClock":
        """Start the clock of a round."""
        return RoundClock(time.monotonic(), time.process_time(), seconds)

    @staticmethod
    def of_process(seconds: float) -> "RoundClock":
        """Start the clock of a round when its process began: starting and importing belong to the round."""
        try:
            fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
        except (OSError, AttributeError, IndexError, ValueError):
            return RoundClock.start(seconds)
        return RoundClock(time.monotonic() - max(0.0, age_s), 0.0, seconds)

    def later(self, seconds: float) -> "RoundClock":
        """Return the clock moved by time that is not the round's own, such as for compiling."""
        return RoundClock(self.began_s + seconds, self.began_cpu_s, self.seconds, self.marks)

    def mark(self, part: str) -> None:
        """Note the end of a part of the round."""
        self.marks.append((part, time.monotonic()))

    @property
    def taken_s(self) -> float:
        """Seconds since the round began."""
        return time.monotonic() - self.began_s

    def parts(self) -> str:
        """Return the seconds of each part, such as `read=1.2 solve=40.1`."""
        found: dict[str, float] = {}
        last_s = self.began_s
        for part, end_s in self.marks:
            found[part] = found.get(part, 0.0) + max(0.0, end_s - last_s)
            last_s = end_s
        return " ".join(f"{part}={seconds:.1f}" for part, seconds in found.items())

    def warn_when_late(self, log: Log) -> None:
        """Log the parts of a round that has taken longer than it may."""
        if self.taken_s > _LATE * self.seconds:
            hint = "the plan counts; where it comes often, give the round more --seconds, or its host less other work"
            log.warning("late", seconds=self.taken_s, allowed=self.seconds, parts=self.parts(), hint=hint)

    def plan(self, problem: Problem, zones: int, work_rate: float) -> TimePlan:
        """Return the time plan once the problem is built; `zones` counts rows and racks, too."""
        size = 1e-6 * zones * problem.slots + 6e-6 * problem.options
        before_s = 0.2 + 1.5e-4 * problem.jobs + size
        after_s = 0.3 + 5e-4 * problem.jobs + 1.5 * size  # reasons, checks, and publishing
        place_s = _PLACE_SHARE * self.seconds
        left_s = max(0.3 * self.seconds, self.seconds - before_s - after_s - place_s)
        spent_s = time.monotonic() - self.began_s
        slow = min(_SLOWEST, max(1.0, spent_s / max(0.05, time.process_time() - self.began_cpu_s)))
        kept_s = min(slow * after_s, _MOST_KEPT * self.seconds)
        end_s = self.began_s + self.seconds
        least_s = time.monotonic() + min(0.8 * self.seconds, _LEAST_S)
        solved_by_s = max(least_s, end_s - kept_s - place_s)
        return TimePlan(work_rate * left_s, work_rate * place_s, solved_by_s, max(solved_by_s, end_s - kept_s))
