"""Validates readings: range, NaN, denormal floats, stuck values, jumps; counters that wrap are unrolled."""

import math
from dataclasses import dataclass

from powerhall_agent.facility.points import Point

__all__ = ["CounterState", "PointValidator", "Validation"]

_SMALLEST = 1e-9
"""Least plausible magnitude of a float that is not zero: a smaller one indicates a wrong byte order."""


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


class PointValidator:
    """Validates the readings of one point in order; an implausible reading gives no value, and never zero."""

    def __init__(self, point: Point, counter: CounterState | None = None) -> None:
        self.point = point
        self.counter = counter
        self._raw: float | None = None
        self._same_since_s = self._counted_s = 0.0

    def take(self, raw: float, now_s: float) -> Validation:
        """Validate a reading at this time of the monotonic clock."""
        why = self._implausible(raw) or self._stuck(raw, now_s)
        if why:
            return Validation(None, why)
        if not self.point.wraps_at:
            return Validation(raw * self.point.scale + self.point.offset)
        return self._count(raw, now_s)

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
        """Unroll; a step back is a wrap when the step it implies is under half the range, otherwise a meter reset.

        A step faster than `max_per_s` is not added: that reading is refused and counting goes on from it.
        """
        point, counter = self.point, self.counter
        passed_s, self._counted_s = now_s - self._counted_s if self._counted_s else math.inf, now_s
        if counter is None:
            self.counter = CounterState(raw, raw)
            return Validation(raw * point.scale + point.offset)
        step = raw - counter.raw
        if step < 0:
            step += point.wraps_at
            step = step if step < point.wraps_at / 2 else raw
        counter.raw = raw
        if 0 < point.max_per_s < step * abs(point.scale) / max(passed_s, 1e-3):
            return Validation(None, f"implausible: the counter jumped by {step * point.scale:g} in {passed_s:.0f} s")
        counter.total += step
        return Validation(counter.total * point.scale + point.offset)
