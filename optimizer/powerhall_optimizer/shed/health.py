"""Health of the shed service: which of its parts cannot do their work now."""

import threading
import time
from collections.abc import Callable

__all__ = ["Health"]


class Health:
    """Set by the parts, read by the HTTP endpoint; safe with several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._problems: dict[str, str] = {}
        self._beats: dict[str, tuple[float, float]] = {}

    def note(self, part: str, problem: str = "") -> None:
        """Set the problem of a part; "" when it works."""
        with self._lock:
            if problem:
                self._problems[part] = problem
            else:
                self._problems.pop(part, None)

    def beat(self, part: str, within_s: float) -> None:
        """Say that a loop is alive; it counts as silent when its next beat takes longer than `within_s`."""
        with self._lock:
            self._beats[part] = self._clock(), within_s

    def problems(self) -> dict[str, str]:
        """Return the parts that do not work, with the reason."""
        with self._lock:
            now_s = self._clock()
            silent = {part: "silent" for part, (at_s, within_s) in self._beats.items() if now_s - at_s > within_s}
            return silent | self._problems
