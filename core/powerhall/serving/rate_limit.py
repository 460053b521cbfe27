"""Token bucket that paces requests."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["RateLimit"]


@dataclass(slots=True)
class RateLimit:
    """A token bucket: `burst` at once, then `per_s`."""

    per_s: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    _left: float = field(init=False, default=0.0)
    _at_s: float = field(init=False, default=0.0)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Begin with a full bucket."""
        self._left, self._at_s = self.burst, self.clock()

    def wait_s(self) -> float:
        """Take one token; return 0, or the seconds to wait when there is none."""
        with self._lock:
            now_s = self.clock()
            self._left, self._at_s = min(self.burst, self._left + (now_s - self._at_s) * self.per_s), now_s
            if self._left >= 1.0:
                self._left -= 1.0
                return 0.0
            return (1.0 - self._left) / self.per_s
