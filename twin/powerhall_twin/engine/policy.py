"""The interface of a scheduling policy."""

from collections.abc import Mapping
from typing import Protocol

from powerhall_twin.engine.sim_state import SimState

__all__ = ["Policy"]


class Policy(Protocol):
    """Decides which jobs start, stop or change their power mode, by calls of the state."""

    def begin(self, state: SimState) -> None:
        """Prepare for a simulation, before its first event."""
        ...

    def decide(self, state: SimState) -> None:
        """Act on the state now; the engine calls this at every event."""
        ...

    def planned_stores(self, now_s: float, /) -> tuple[Mapping[str, float] | None, float]:
        """Return what each store is planned to deliver at a moment in W, None without a plan, and when that changes."""
        ...
