"""Validates readings: range, NaN, denormal floats, stuck values, counters that jump; those that wrap are unrolled."""

import math
from dataclasses import dataclass

from powerhall_agent.facility.points import Point

__all__ = ["CounterState", "PointValidator", "Validation"]

_SMALLEST = 1e-9
"""Least plausible magnitude of a float that is not zero: a smaller one indicates a wrong byte order."""

_LITTLE = 1e-3
"""A step back by this part of a counter is no reset."""
_BURST_S = 60.0
"""A counter may rise by what it counts in this time at once: meters renew theirs up to once a minute."""


@dataclass(frozen=True, slots=True)
class Validation:
    """A value in the point's unit, or None with the reason; `good` is the quality that is stored."""

    value: float | None
    why: str = ""

    @property
    def good(self) -> bool:
        """True when the value may be used."""
        return self.value is not None


@dataclass(slots=True)
class CounterState:
    """A counter's last reading and its sum over wraps, both as the device counts; kept over restarts."""

    raw: float
    total: float
    at_s: float = 0.0
    """When it was read, by the wall clock; 0 where that is not known."""


class PointValidator:
    """Validates the readings of one point in order; an implausible reading gives no value, and never zero."""

    def __init__(self, point: Point, counter: CounterState | None = None, counted_s: float = -math.inf) -> None:
        """Go on from a counter that was read at `counted_s` of the monotonic clock."""
        self.point = point
        self.counter = counter
        self.counted_s = counted_s
        self._raw: float | None = None
        self._same_since_s = 0.0
        self._odd: tuple[float, float] | None = None
        """A reading that does not follow from the last one, and its time; the next one confirms or refutes it."""

    def falls_to_zero(self, raw: float | None) -> bool:
        """Return whether this is a counter that shows 0 after more, as devices do while they start."""
        return raw == 0.0 and self.counter is not None and self.counter.raw > 0.0

    def take(self, raw: float, now_s: float) -> Validation:
        """Validate a reading at this time of the monotonic clock."""
        why = self._implausible(raw) or self._stuck(raw, now_s)
        if why:
            return Validation(None, why)
        if self.point.counts:
            return self._count(raw, now_s)
        return Validation(raw * self.point.scale + self.point.offset)

    def _implausible(self, raw: float) -> str:
        point = self.point
        value = raw * point.scale + point.offset
        if not math.isfinite(value):
            return "implausible: not a number" if math.isnan(value) else "implausible: infinite"
        if not point.min <= value <= point.max:
            return f"implausible: {value:g} is outside {point.min:g} to {point.max:g}"
        if 0 < abs(raw) < _SMALLEST:
            return f"implausible: {raw:g}: byte or word order?"
        if point.wraps_at and raw >= point.wraps_at:
            return f"implausible: counter {raw:g} is past wraps_at {point.wraps_at:g}"
        return ""

    def _stuck(self, raw: float, now_s: float) -> str:
        if raw != self._raw:
            self._raw, self._same_since_s = raw, now_s
        same_s = now_s - self._same_since_s
        return f"stuck: {raw:g} for {same_s:.0f} s" if 0 < self.point.stuck_after_s <= same_s else ""

    def _count(self, raw: float, now_s: float) -> Validation:
        """Unroll a counter. A reading that does not follow from the last one is no value until the next confirms it.

        So a meter that shows zero or a sentinel for a moment adds nothing; one that was reset or exchanged counts on
        from its sum. One that steps back a little stands still until it has caught up.
        """
        counter = self.counter
        if counter is None:
            counter = self.counter = CounterState(raw, raw)
            return self._counted(counter, raw, 0.0, now_s)
        step = self._step(counter.raw, raw, now_s - self.counted_s)
        if step is not None:
            return self._counted(counter, raw, step, now_s)
        back = (counter.raw - raw) * abs(self.point.scale)
        if 0 < back <= max(self.point.max_per_s * _BURST_S, _LITTLE * counter.raw * abs(self.point.scale)):
            return self._counted(counter, counter.raw, 0.0, self.counted_s)
        odd, self._odd = self._odd, (raw, now_s)
        confirmed = None if odd is None else self._step(odd[0], raw, now_s - odd[1])
        if odd is None or confirmed is None:
            why = f"implausible: the counter went from {counter.raw:g} to {raw:g}; waits for the next reading"
            return Validation(None, why)
        return self._counted(counter, raw, confirmed + self._since_reset(odd[0], now_s - self.counted_s), now_s)

    def _counted(self, counter: CounterState, raw: float, step: float, now_s: float) -> Validation:
        counter.raw, counter.total, self.counted_s, self._odd = raw, counter.total + step, now_s, None
        value = counter.total if self.point.wraps_at else raw
        return Validation(value * self.point.scale + self.point.offset)

    def _step(self, before: float, raw: float, passed_s: float) -> float | None:
        """Return what was counted from one reading to a later one; None where a counter cannot have gone so."""
        point, step = self.point, raw - before
        if step < 0 and point.wraps_at:
            step += point.wraps_at
        if step < 0 or (point.wraps_at and step >= point.wraps_at / 2):
            return None
        if 0 < point.max_per_s < step * abs(point.scale) / max(passed_s, _BURST_S):
            return None
        return step

    def _since_reset(self, raw: float, passed_s: float) -> float:
        """Return what a counter that began at zero counted before its first reading, where `max_per_s` bounds it."""
        return raw if raw * abs(self.point.scale) <= self.point.max_per_s * passed_s < math.inf else 0.0
