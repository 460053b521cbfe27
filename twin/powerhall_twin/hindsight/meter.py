"""The site's meter: its readings as means of slots, and how they compare with the power of the model."""

import statistics
from collections.abc import Callable
from datetime import tzinfo
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from powerhall.forecasts.completion import Row, sort_rows
from powerhall.forecasts.csv_series import MISSING_TEXTS, column_of, timed_rows
from powerhall.forecasts.local_time import LocalTimes, time_columns
from powerhall.runtime.decode.csv_table import read_csv
from powerhall.runtime.decode.numbers_in import finite
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.inputs.horizon import Horizon

__all__ = ["Calibration", "Meter", "calibrate", "read_meter"]

Floats = npt.NDArray[np.float64]
_COLUMNS = {"power_w": 1.0, "power_kw": 1e3, "power_mw": 1e6}
_MOST_STEPS = 3.0
"""A reading holds until the next one, at most so many usual steps of the file."""
_LEAST_COVERED = 0.5
_LEAST_FACTOR, _MOST_FACTOR = 0.3, 1.6
_ODD = 0.25


class Meter(msgspec.Struct, frozen=True):
    """Readings as means of slots in W, NaN where less than half a slot is covered."""

    power_w: tuple[float, ...]
    covered: float
    """Share of the window that readings cover."""
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> Floats:
        """Return the means as an array."""
        return np.array(self.power_w)


class Calibration(msgspec.Struct, frozen=True):
    """The model against the meter, over the slots that it covers: energies in J, errors as shares of the meter's mean.

    `factor` scales the power that jobs add to idle nodes so that the energies agree; it is applied where it is between
    0.3 and 1.6, and `applied` then.
    """

    covered: float
    metered_j: float
    modelled_j: float
    factor: float
    applied: bool
    error: float
    """Mean absolute difference per slot after the factor."""
    correlation: float
    odd_h: float
    """Hours in which they are further apart than a quarter of the metered power."""


def read_meter(path: Path, zone: tzinfo | None, horizon: Horizon) -> Meter:
    """Read a CSV of times and the site's power; gaps stay gaps. Without a reading in the window it raises Rejected.

    Missing and negative readings count as none, and are told.
    """
    source = str(path)
    table = read_csv(path)
    times = column_of(table.header, time_columns(), source)
    values = column_of(table.header, _COLUMNS, source)
    rows: list[Row] = []
    bad = 0
    for line, time_s, cells in timed_rows(table, times, LocalTimes(times, zone), source):
        power_w = _reading(cells.get(values) or "", f"line {line}: {values}", source)
        bad += power_w is not None and power_w < 0
        rows.append((time_s, None if power_w is None or power_w < 0 else power_w * _COLUMNS[values]))
    ordered, counts = sort_rows(rows)
    means, covered = _means(ordered, horizon)
    if covered <= 0:
        raise Rejected(f"{source}: no reading in the window: must have one, or leave out --meter")
    notes = [f"meter: {covered:.1%} of the window is covered; the rest is a gap"] if covered < 0.995 else []
    told = {"negative readings left out": bad, "readings missing": counts.missing - bad, "repeated": counts.duplicates}
    notes += [f"meter: {count} {what}" for what, count in told.items() if count > 0]
    return Meter(tuple(means.tolist()), covered, tuple(notes))


def _reading(text: str, field: str, source: str) -> float | None:
    if text.strip().lower() in MISSING_TEXTS:
        return None
    try:
        return finite(text)
    except ValueError as error:
        raise Rejected.field(source, field, text[:80], str(error)) from None


def _means(ordered: list[Row], horizon: Horizon) -> tuple[Floats, float]:
    """Return the means of the slots, and the share of the window that is covered."""
    steps = [b - a for (a, _), (b, _) in pairwise(ordered)]
    longest_s = _MOST_STEPS * statistics.median(steps) if steps else float(horizon.slot_s)
    starts = [time_s for time_s, _ in ordered]
    ends = [min(a + longest_s, b) for a, b in zip(starts, [*starts[1:], float("inf")], strict=True)]
    known = [(a, b, w) for (a, w), b in zip(ordered, ends, strict=True) if w is not None]
    edges = horizon.start_s + np.arange(horizon.slots + 1) * float(horizon.slot_s)
    if not known:
        return np.full(horizon.slots, np.nan), 0.0
    # Energy and covered time up to each edge: both grow linearly from the start of a reading to its end.
    points = np.array([at for a, b, _ in known for at in (a, b)])
    energy = np.concatenate(([0.0], np.cumsum([part for a, b, w in known for part in (w * (b - a), 0.0)])))[:-1]
    time_s = np.concatenate(([0.0], np.cumsum([part for a, b, _ in known for part in (b - a, 0.0)])))[:-1]
    seconds = np.diff(np.interp(edges, points, time_s))
    joules = np.diff(np.interp(edges, points, energy))
    enough = seconds >= _LEAST_COVERED * horizon.slot_s
    means = np.where(enough, joules / np.maximum(seconds, 1e-9), np.nan)
    return means, float(seconds.sum() / (horizon.slots * horizon.slot_s))


def calibrate(meter: Meter, model_w: Callable[[float], Floats], slot_s: int) -> Calibration | None:
    """Return how the model compares with the meter; None where jobs add no power while it is covered.

    `model_w` gives the site's power per slot for a factor on the power that jobs add.
    """
    metered = meter.values
    known = ~np.isnan(metered)
    wanted = float(metered[known].sum())
    plain, idle = model_w(1.0)[known], model_w(0.0)[known]
    if not known.any() or float((plain - idle).sum()) <= 0:
        return None
    factor = _solve(lambda k: float(model_w(k)[known].sum()) - wanted)
    applied = _LEAST_FACTOR <= factor <= _MOST_FACTOR
    fitted = model_w(factor)[known] if applied else plain
    mean = max(1e-9, float(metered[known].mean()))
    apart = np.abs(fitted - metered[known])
    both_vary = fitted.std() > 0 and metered[known].std() > 0
    return Calibration(
        meter.covered,
        wanted * slot_s,
        float(plain.sum()) * slot_s,
        factor,
        applied,
        float(apart.mean()) / mean,
        float(np.corrcoef(fitted, metered[known])[0, 1]) if both_vary else 0.0,
        float((apart > _ODD * metered[known]).sum()) * slot_s / 3600,
    )


def _solve(excess: Callable[[float], float]) -> float:
    """Return the factor from 0 to 4 at which a rising function is 0."""
    low, high = 0.0, 4.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return (low + high) / 2
