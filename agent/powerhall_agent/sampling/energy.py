"""Energy of one GPU, twice: from the driver's counter and integrated from power samples, both in integers.

The counter restarts on a driver reload or GPU reset and may wrap at 2^32 mJ; the energy that the GPU can have used in
the meantime tells one from the other. Published totals never fall. Gaps longer than two seconds are filled from the
counter. Powers are kept in mW and times in ns, so their product is pJ; totals are kept in mJ with the rest in pJ.
"""

from collections.abc import Sequence
from operator import add, mul, sub
from typing import Final

__all__ = ["EnergyAccumulator"]

_PJ_PER_MJ: Final = 1_000_000_000
_GAP_NS: Final = 2_000_000_000
_PLAUSIBLE_MW: Final = 6_000_000
"""More than any GPU module can draw (GB300 module: 2.9 kW), times two."""
_SLACK_MJ: Final = 50_000
_WRAP: Final = 1 << 32


class EnergyAccumulator:
    """Monotonic counter and integral of one GPU, and their closure."""

    def __init__(self, counter_mj: int = 0, integral_mj: int = 0, raw_mj: int | None = None) -> None:
        """Continue from totals of an earlier run; `raw_mj` is the driver's counter at its end."""
        self.counter_mj = counter_mj
        self.raw_mj = raw_mj
        self.resets = 0
        self._integral_pj = integral_mj * _PJ_PER_MJ
        self._last_ns: int | None = None
        self._last_mw: int | None = None
        self._window_mj = 0
        self._window_pj = 0
        self._window_whole = True

    @property
    def integral_mj(self) -> int:
        """Energy integrated from power samples, in mJ."""
        return self._integral_pj // _PJ_PER_MJ

    def add(self, now_ns: int, power_mw: int | None, raw_mj: int | None) -> bool:
        """Take a sample; `now_ns` is of the monotonic clock. Returns True when the driver's counter had restarted."""
        first = self._last_ns is None
        elapsed_ns = 0 if self._last_ns is None else max(0, now_ns - self._last_ns)
        self._last_ns = now_ns
        sampled_pj = self._trapezoid(elapsed_ns, power_mw)
        step_mj, restarted = (0, False) if raw_mj is None else self._counter_step(raw_mj, elapsed_ns, sampled_pj, first)
        gap = first or elapsed_ns > _GAP_NS or sampled_pj is None
        step_pj = step_mj * _PJ_PER_MJ if gap or sampled_pj is None else sampled_pj
        self.counter_mj += step_mj if raw_mj is not None else step_pj // _PJ_PER_MJ
        self._integral_pj += step_pj
        self._window_mj += step_mj
        self._window_pj += step_pj
        self._window_whole = self._window_whole and not gap and raw_mj is not None and not restarted
        self._last_mw = power_mw
        return restarted

    def add_many(
        self, times_ns: Sequence[int], powers_mw: Sequence[int | None], raws_mj: Sequence[int | None]
    ) -> tuple[list[int], list[int]]:
        """Take samples in order; return the counter after each, and the places where the driver's had restarted."""
        energies, restarts = self._add_smooth(times_ns, powers_mw, raws_mj), []
        if energies is None:
            energies = []
            for place, (now_ns, power_mw, raw_mj) in enumerate(zip(times_ns, powers_mw, raws_mj, strict=True)):
                if self.add(now_ns, power_mw, raw_mj):
                    restarts.append(place)
                energies.append(self.counter_mj)
        return energies, restarts

    def _add_smooth(
        self, times_ns: Sequence[int], powers_mw: Sequence[int | None], raws_mj: Sequence[int | None]
    ) -> list[int] | None:
        """Take samples at once where none is missing and there is no gap, restart or jump; None otherwise."""
        if self._last_ns is None or self._last_mw is None or self.raw_mj is None or len(times_ns) < 2:
            return None
        watts = [power_mw for power_mw in powers_mw if power_mw is not None]
        raws = [raw_mj for raw_mj in raws_mj if raw_mj is not None]
        if len(watts) != len(times_ns) or len(raws) != len(times_ns):
            return None
        steps_ns = list(map(sub, times_ns, (self._last_ns, *times_ns[:-1])))
        rises_mj = list(map(sub, raws, (self.raw_mj, *raws[:-1])))
        if min(steps_ns) < 0 or max(steps_ns) > _GAP_NS or min(rises_mj) < 0 or max(rises_mj) > _SLACK_MJ:
            return None
        step_pj = sum(map(mul, map(add, watts, (self._last_mw, *watts[:-1])), steps_ns)) // 2
        before_mj = self.counter_mj - self.raw_mj
        step_mj = raws[-1] - self.raw_mj
        self.counter_mj += step_mj
        self._integral_pj += step_pj
        self._window_mj += step_mj
        self._window_pj += step_pj
        self._last_ns, self._last_mw, self.raw_mj = times_ns[-1], watts[-1], raws[-1]
        return [before_mj + raw_mj for raw_mj in raws]

    def _trapezoid(self, elapsed_ns: int, power_mw: int | None) -> int | None:
        if power_mw is None or self._last_mw is None:
            return None
        return (power_mw + self._last_mw) * elapsed_ns // 2

    def _counter_step(self, raw_mj: int, elapsed_ns: int, sampled_pj: int | None, first: bool) -> tuple[int, bool]:
        """Return the rise of the counter, and whether it had restarted."""
        last_mj, self.raw_mj = self.raw_mj, raw_mj
        if last_mj is None:
            return 0, False
        most_mj = _PLAUSIBLE_MW * elapsed_ns // 1_000_000_000 + _SLACK_MJ
        if raw_mj >= last_mj:
            step_mj = raw_mj - last_mj
            if first or step_mj <= most_mj:
                return step_mj, False
            return (sampled_pj or 0) // _PJ_PER_MJ, False
        wrapped_mj = raw_mj + _WRAP - last_mj
        if last_mj < _WRAP and wrapped_mj <= most_mj:
            return wrapped_mj, False
        self.resets += 1
        if first or raw_mj <= most_mj:
            return raw_mj, True
        return (sampled_pj or 0) // _PJ_PER_MJ, True

    def closure(self) -> float | None:
        """Return counter over integral, less one, since the last call; None after a gap or restart."""
        whole, counter_mj, integral_pj = self._window_whole, self._window_mj, self._window_pj
        self._window_mj = self._window_pj = 0
        self._window_whole = True
        if not whole or integral_pj <= 0:
            return None
        return counter_mj * _PJ_PER_MJ / integral_pj - 1.0
