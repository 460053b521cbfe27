"""Energy of one GPU, twice: from the driver's counter and integrated from power samples, both in integers.

The counter restarts on a driver reload or GPU reset and may wrap at 2^32 mJ; readings that no GPU can have are dropped
(base/trusted_counter.py), and the power samples tell how far it went meanwhile. Published totals never fall. Where
power is missing, was dropped, or came more than two seconds late, the integral is filled from the counter, once that
is sane. Powers are kept in mW and times in ns, so their product is pJ; totals are kept in mJ with the rest in pJ.
"""

from collections.abc import Sequence
from operator import add, mul, sub
from typing import Final

from powerhall_agent.base.trusted_counter import TrustedCounter, Verdict

__all__ = ["MOST_MW", "EnergyAccumulator"]

_PJ_PER_MJ: Final = 1_000_000_000
_GAP_NS: Final = 2_000_000_000
MOST_MW: Final = 6_000_000
"""More than any GPU module can draw (GB300 module: 2.9 kW), times two."""
_SLACK_MJ: Final = 50_000
_WRAP: Final = 1 << 32


class EnergyAccumulator:
    """Monotonic counter and integral of one GPU, and their closure."""

    def __init__(self, counter_mj: int = 0, integral_mj: int = 0, raw_mj: int | None = None, raw_ns: int = 0) -> None:
        """Continue from totals of an earlier run; `raw_mj` is the driver's counter at its end, read at `raw_ns`.

        `raw_ns` is of the monotonic clock of this boot; 0, its begin, bounds what the counter can have risen since.
        """
        self.counter = TrustedCounter(MOST_MW, _SLACK_MJ, _WRAP, counter_mj, raw_mj, raw_ns)
        self.resets = 0
        self.dropped = 0
        """Readings of the counter that were not believed, since the last `take_dropped`."""
        self._integral_pj = integral_mj * _PJ_PER_MJ
        self._filled_pj, self._filled_mj = self._integral_pj, counter_mj
        """Integral and counter at the last sample up to which the integral has no hole."""
        self._filled_ns = 0
        self._hole = True
        self._last_ns: int | None = None
        self._power_ns = 0
        self._last_mw: int | None = None
        self._rest_pj = 0
        self._window_mj = self._window_pj = 0
        self._window_whole = True

    @property
    def counter_mj(self) -> int:
        """Energy by the driver's counter, made monotonic, in mJ."""
        return self.counter.total

    @property
    def raw_mj(self) -> int | None:
        """The last believed reading of the driver's counter, in mJ."""
        return self.counter.raw

    @property
    def integral_mj(self) -> int:
        """Energy integrated from power samples, in mJ."""
        return self._integral_pj // _PJ_PER_MJ

    def add(self, now_ns: int, power_mw: int | None, raw_mj: int | None) -> bool:
        """Take a sample; `now_ns` is of the monotonic clock. Returns True when the driver's counter had restarted."""
        first = self._last_ns is None
        elapsed_ns = 0 if self._last_ns is None else max(0, now_ns - self._last_ns)
        self._last_ns = now_ns
        missed = first or elapsed_ns > _GAP_NS or power_mw is None or self._power_ns != now_ns - elapsed_ns
        sampled_pj = self._trapezoid(now_ns, power_mw)
        before_mj, before_pj = self.counter.total, self._integral_pj
        verdict = self._count(now_ns, raw_mj, sampled_pj or 0, (self._last_mw or 0) * elapsed_ns // _PJ_PER_MJ)
        self._integrate(sampled_pj, missed=missed, believed=verdict is Verdict.BELIEVED)
        if verdict is Verdict.BELIEVED:
            self._filled_ns = now_ns
        if power_mw is not None:
            self._last_mw, self._power_ns = power_mw, now_ns
        self._window_mj += self.counter.total - before_mj
        self._window_pj += self._integral_pj - before_pj
        self._window_whole = self._window_whole and not missed and verdict is Verdict.BELIEVED
        return verdict is Verdict.RESTARTED

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
                energies.append(self.counter.total)
        return energies, restarts

    def _add_smooth(
        self, times_ns: Sequence[int], powers_mw: Sequence[int | None], raws_mj: Sequence[int | None]
    ) -> list[int] | None:
        """Take samples at once where none is missing and there is no gap, restart or jump; None otherwise."""
        counter, last_ns = self.counter, self._last_ns
        if last_ns is None or self._last_mw is None or counter.raw is None or len(times_ns) < 2:
            return None
        if self._hole or self._power_ns != last_ns or last_ns - counter.raw_ns > _GAP_NS or not counter.steady:
            return None
        watts = [power_mw for power_mw in powers_mw if power_mw is not None]
        raws = [raw_mj for raw_mj in raws_mj if raw_mj is not None]
        if len(watts) != len(times_ns) or len(raws) != len(times_ns):
            return None
        steps_ns = list(map(sub, times_ns, (last_ns, *times_ns[:-1])))
        rises_mj = list(map(sub, raws, (counter.raw, *raws[:-1])))
        if min(steps_ns) < 0 or max(steps_ns) > _GAP_NS or min(rises_mj) < 0:
            return None
        if max(rises_mj) > counter.most_within(min(steps_ns)) or not counter.may_pass(raws):
            return None
        step_pj = sum(map(mul, map(add, watts, (self._last_mw, *watts[:-1])), steps_ns)) // 2
        offset_mj = counter.total - counter.raw
        self._window_mj += raws[-1] - counter.raw
        self._window_pj += step_pj
        self._integral_pj += step_pj
        counter.advance((times_ns[-2], times_ns[-1]), (raws[-2], raws[-1]))
        self._last_ns = self._power_ns = times_ns[-1]
        self._last_mw, self._rest_pj = watts[-1], 0
        self._filled_pj, self._filled_mj = self._integral_pj, counter.total
        self._filled_ns = times_ns[-1]
        return [offset_mj + raw_mj for raw_mj in raws]

    def _trapezoid(self, now_ns: int, power_mw: int | None) -> int | None:
        """Return the energy since the last power sample; None where there is none within two seconds.

        Up to the last believed reading of the counter everything is counted already: only what came after it is left.
        """
        if power_mw is None or self._last_mw is None or not 0 <= now_ns - self._power_ns <= _GAP_NS:
            return None
        since_ns = max(self._power_ns, min(self._filled_ns, now_ns))
        return (power_mw + self._last_mw) * (now_ns - since_ns) // 2

    def _count(self, now_ns: int, raw_mj: int | None, sampled_pj: int, expected_mj: int) -> Verdict | None:
        """Count the driver's counter on, by its reading or else by the power samples.

        Where power is missing too, the last power tells what to expect.
        """
        estimate_mj, rest_pj = divmod(sampled_pj + self._rest_pj, _PJ_PER_MJ)
        if raw_mj is None:
            self._rest_pj = rest_pj
            self.counter.skip(estimate_mj)
            return None
        verdict = self.counter.take(now_ns, raw_mj, estimate_mj, expected_mj)
        self._rest_pj = 0 if verdict is Verdict.BELIEVED else rest_pj
        self.resets += verdict is Verdict.RESTARTED
        self.dropped += verdict is Verdict.DROPPED
        return verdict

    def _integrate(self, sampled_pj: int | None, *, missed: bool, believed: bool) -> None:
        """Count the integral on by the power samples, and fill what they missed from the counter."""
        self._hole = self._hole or missed
        if sampled_pj is not None:
            self._integral_pj += sampled_pj
        if believed:
            if self._hole:
                filled_pj = self._filled_pj + (self.counter.total - self._filled_mj) * _PJ_PER_MJ
                self._integral_pj = max(self._integral_pj - (sampled_pj or 0), filled_pj)
            self._hole = False
            self._filled_pj, self._filled_mj = self._integral_pj, self.counter.total

    def take_dropped(self) -> tuple[int, str]:
        """Return how many readings of the counter were dropped since the last call, and why the last one was."""
        dropped, self.dropped = self.dropped, 0
        return dropped, self.counter.reason

    def closure(self) -> float | None:
        """Return counter over integral, less one, since the last call; None after a gap or restart."""
        whole, counter_mj, integral_pj = self._window_whole, self._window_mj, self._window_pj
        self._window_mj = self._window_pj = 0
        self._window_whole = True
        if not whole or integral_pj <= 0:
            return None
        return counter_mj * _PJ_PER_MJ / integral_pj - 1.0
