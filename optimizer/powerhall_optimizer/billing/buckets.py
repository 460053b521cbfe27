"""A period cut at every five minutes: step functions of time, summed up and integrated over it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.forecasts.coverage import Forecast

__all__ = ["BUCKET_S", "Buckets", "Floats"]

Floats = npt.NDArray[np.float64]
BUCKET_S = 300


@dataclass(frozen=True, slots=True)
class Buckets:
    """The buckets of a period, cut off at its ends: `edges_s` are seconds after `start_s`, one more than buckets."""

    start_s: float
    end_s: float
    edges_s: Floats

    @classmethod
    def of(cls, start_s: float, end_s: float) -> "Buckets":
        """Return the buckets of a period, which may begin and end inside of one."""
        first, last = int(start_s // BUCKET_S), -int(-end_s // BUCKET_S)
        edges = np.arange(first, last + 1, dtype=np.float64) * BUCKET_S
        return cls(start_s, end_s, np.clip(edges, start_s, end_s) - start_s)

    @property
    def count(self) -> int:
        """Number of buckets."""
        return len(self.edges_s) - 1

    @property
    def lengths_s(self) -> Floats:
        """Seconds of each bucket inside the period."""
        return np.diff(self.edges_s)

    def number(self, time_s: float) -> int:
        """Return the number of the bucket that a time is in; beyond the period it is no valid one."""
        return int(time_s // BUCKET_S) - int(self.start_s // BUCKET_S)

    def energy_j(self, start_s: Floats, end_s: Floats, power_w: Floats) -> Floats:
        """Return the energy per bucket of spans of constant power, whatever part of them is inside."""
        low, high = (np.clip(at - self.start_s, 0.0, self.edges_s[-1]) for at in (start_s, end_s))
        ramps = _ramp(low, power_w, self.edges_s) - _ramp(high, power_w, self.edges_s)
        return np.diff(ramps)

    def integral(self, values: Floats, start_s: Floats, end_s: Floats) -> Floats:
        """Return the integral over spans of a quantity that is constant within each bucket."""
        total = np.concatenate(([0.0], np.cumsum(values * self.lengths_s)))
        low, high = (np.interp(at - self.start_s, self.edges_s, total) for at in (start_s, end_s))
        result: Floats = high - low
        return result

    def sampled(self, forecast: Forecast) -> Floats:
        """Return the mean of a file's values in each bucket; nan where the file does not cover all of it."""
        values = np.array(forecast.series.slots(int(self.start_s // BUCKET_S) * BUCKET_S, BUCKET_S, self.count, "mean"))
        for low_s, high_s in forecast.coverage.uncovered(self.start_s, self.end_s):
            first, last = self.number(low_s), -int(-high_s // BUCKET_S) - int(self.start_s // BUCKET_S)
            values[max(0, first) : last] = np.nan
        return values


def _ramp(begin_s: Floats, power_w: Floats, at_s: Floats) -> Floats:
    """Return the energy by each time of powers that begin and never end."""
    order = np.argsort(begin_s, kind="stable")
    begun, watts = begin_s[order], power_w[order]
    power = np.concatenate(([0.0], np.cumsum(watts)))
    moment = np.concatenate(([0.0], np.cumsum(watts * begun)))
    number = np.searchsorted(begun, at_s)
    result: Floats = power[number] * at_s - moment[number]
    return result
