"""How fast the power at the meter rises and falls, against the ramp limits of the site.

Within `WINDOW_S` power may rise, or fall, by the limit times that span, as plans keep it from slot to slot. A policy
may start no job beyond that. Falls are only counted: a job that ends is nobody's choice.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from powerhall.site.curtailment import STEP_S
from powerhall.site.topology import Site
from powerhall_twin.engine.meter import facility_w
from powerhall_twin.engine.sim_state import SimState

__all__ = ["WINDOW_S", "Ramps"]

WINDOW_S = STEP_S
_TOLERANCE_W = 1.0


@dataclass(slots=True)
class Ramps:
    """The stretches of constant power in the window, by their end, and what was found: steepest changes, breaks."""

    up_w: float
    down_w: float
    seen: deque[tuple[float, float]] = field(default_factory=deque)
    rises: int = 0
    falls: int = 0
    steepest_rise_w: float = 0.0
    steepest_fall_w: float = 0.0
    is_rising: bool = False
    is_falling: bool = False

    @classmethod
    def of(cls, site: Site) -> "Ramps | None":
        """Return those of a site, None where it has no ramp limit."""
        up, down = site.ramp_up_w_per_s, site.ramp_down_w_per_s
        if up is None and down is None:
            return None
        return cls(math.inf if up is None else up * WINDOW_S, math.inf if down is None else down * WINDOW_S)

    def allow(self, state: SimState) -> float:
        """Before a policy decides: tell how far power may rise; return when the lowest power leaves the window."""
        self._forget(state.now_s)
        power_w = facility_w(state.physical or state.world) - float(state.delivered_w[0])
        low_end_s, low_w = min(self.seen, key=lambda one: one[1], default=(math.inf, power_w))
        state.set_rise(max(0.0, min(low_w, power_w) + self.up_w - power_w), self.up_w)
        return low_end_s + WINDOW_S if low_w < power_w and self.up_w < math.inf else math.inf

    def add(self, end_s: float, dt_s: float, power_w: float) -> None:
        """Count a stretch of `dt_s` at a power that ends now."""
        self._forget(end_s - dt_s)
        rise_w = max((power_w - before_w for _, before_w in self.seen), default=0.0)
        fall_w = max((before_w - power_w for _, before_w in self.seen), default=0.0)
        self.steepest_rise_w, self.steepest_fall_w = (
            max(rise_w, self.steepest_rise_w),
            max(fall_w, self.steepest_fall_w),
        )
        too_steep = rise_w > self.up_w + _TOLERANCE_W, fall_w > self.down_w + _TOLERANCE_W
        self.rises += too_steep[0] and not self.is_rising
        self.falls += too_steep[1] and not self.is_falling
        self.is_rising, self.is_falling = too_steep
        self.seen.append((end_s, power_w))

    def _forget(self, now_s: float) -> None:
        while self.seen and self.seen[0][0] <= now_s - WINDOW_S:
            self.seen.popleft()
