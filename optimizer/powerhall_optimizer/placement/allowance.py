"""Counted work of the placement: steps cost fixed seconds, the clock is only a guard.

So placing takes the same decisions on a busy and on an idle machine, as long as no deadline cuts it short.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Allowance"]

OPTION_S, STARTS_S, PUT_S, STEP_S = 6e-5, 5e-4, 3e-4, 1e-3
"""Reference seconds of looking at an option, listing its starts, seeking nodes, and of a step of the search."""


def _never() -> bool:
    return False


@dataclass(slots=True)
class Allowance:
    """Reference seconds that are left for a part of the placement, and what ends it early."""

    left_s: float
    late: Callable[[], bool] = field(default=_never)
    cut: bool = False

    def charge(self, seconds: float) -> None:
        """Take the cost of a step."""
        self.left_s -= seconds

    @property
    def spent(self) -> bool:
        """Nothing is left, or it is late; the latter is remembered."""
        if self.left_s <= 0:
            return True
        if self.late():
            self.cut = True
        return self.cut
