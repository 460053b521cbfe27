"""Turns a counter that wraps or restarts into one that only rises."""

__all__ = ["CounterUnwrapper"]


class CounterUnwrapper:
    """Adds up the steps of a counter of `bits` bits that may wrap or restart.

    A step back counts as a wrap when the step that it implies is under half the range of the counter; otherwise the
    counter has restarted at zero. A counter whose value does not fit into `bits` has 64.
    """

    __slots__ = ("_last", "_range", "_total")

    def __init__(self, bits: int) -> None:
        """Start without a reading."""
        self._range = 1 << bits
        self._last: int | None = None
        self._total = 0

    def total(self, raw: int) -> int:
        """Take a reading and return the sum so far; the first reading is the start of the sum."""
        if raw >= self._range:
            self._range = 1 << 64
        if self._last is None:
            self._total = raw
        elif raw >= self._last:
            self._total += raw - self._last
        else:
            step = raw + self._range - self._last
            self._total += step if step < self._range // 2 else raw
        self._last = raw
        return self._total
