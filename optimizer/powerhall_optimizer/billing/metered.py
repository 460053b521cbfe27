"""What the meter shows of each hall: the roll-up of five minutes, the hall's own meters, and those at the grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.store import Query, Row, Select, Store
from powerhall_optimizer.billing.buckets import BUCKET_S, Buckets, Floats

__all__ = ["Gap", "HallMeter", "read_halls"]

_FIELDS = ("it_power_w", "it_assumed_w", "meter_power_w", "facility_power_w", "water_l_per_h")
_MOST_RATIO = 20.0
"""A power of the site beyond this many times its IT power is garbage, and a gap."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A span of a hall without data: `missing` says which."""

    hall: str
    start_s: float
    end_s: float
    missing: str

    @property
    def hours(self) -> float:
        """Its length in h."""
        return (self.end_s - self.start_s) / 3600.0


@dataclass(frozen=True, slots=True)
class HallMeter:
    """Mean powers of a hall per bucket in W, water in l per h; nan in all of them where the meter has a gap.

    Water may be nan elsewhere too, where the roll-up has none.
    `it_w` is what the hall's own meters show, where it has some; `assumed_w` is the part of the roll-up's that nobody
    measured: silent nodes at their worst. `facility_w` is IT, cooling and losses, or the hall's part of the grid's.
    """

    hall: str
    it_w: Floats
    assumed_w: Floats
    facility_w: Floats
    water_l_per_h: Floats
    gaps: tuple[Gap, ...]

    @property
    def known(self) -> Floats:
        """1 in buckets that the meter covers, 0 in others."""
        return np.isfinite(self.facility_w).astype(float)

    @property
    def dry(self) -> npt.NDArray[np.bool_]:
        """Buckets that the meter covers without their water."""
        found: npt.NDArray[np.bool_] = np.isfinite(self.facility_w) & ~np.isfinite(self.water_l_per_h)
        return found


def read_halls(
    store: Store, site: str, halls: Sequence[str], buckets: Buckets, meters: Sequence[str] = ()
) -> list[HallMeter]:
    """Read the meters of each hall over a period; `meters` are devices that together show the site at the grid."""
    read = {hall: _read(store, site, hall, buckets) for hall in halls}
    grid = _grid_w(store, site, meters, buckets) if meters else None
    factor = np.ones(buckets.count)
    if grid is not None:
        whole = np.sum([values["facility_w"] for values in read.values()], axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = grid / whole
    return [_hall(hall, values, factor, buckets) for hall, values in read.items()]


def _hall(hall: str, values: dict[str, Floats], factor: Floats, buckets: Buckets) -> HallMeter:
    """Return a hall's meter; `factor` is what the meters at the grid show over what the roll-ups have, nan in gaps."""
    it_w, facility_w = values["it_w"], values["facility_w"] * factor
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(facility_w) & (it_w > 0) & (facility_w >= 0) & (facility_w < _MOST_RATIO * it_w))
    silent = ~np.isfinite(it_w)
    beyond = ~np.isfinite(values["facility_w"]) & ~silent
    unmetered = ~np.isfinite(factor) & ~silent & ~beyond
    kinds = [(silent, "roll-up"), (beyond, "cooling and losses"), (unmetered, "meter at the grid")]
    kinds += [(bad & ~silent & ~beyond & ~unmetered, "plausible power")]
    gaps = [gap for mask, missing in kinds for gap in _spans(hall, mask, missing, buckets)]
    it_w, facility_w, assumed_w = (np.where(bad, np.nan, each) for each in (it_w, facility_w, values["assumed_w"]))
    water = np.where(bad, np.nan, values["water"])
    return HallMeter(hall, it_w, assumed_w, facility_w, water, tuple(sorted(gaps, key=lambda gap: gap.start_s)))


def _read(store: Store, site: str, hall: str, buckets: Buckets) -> dict[str, Floats]:
    """Return mean powers per bucket; where the hall has meters of its own they take the place of its sum."""
    columns = {name: np.full(buckets.count, np.nan) for name in _FIELDS}
    query = Query("hall_5m", tuple(Select(name) for name in _FIELDS), {"site": site, "hall": hall})
    _fill(columns, store.query(query, buckets.start_s // BUCKET_S * BUCKET_S, buckets.end_s), buckets)
    summed, meter = columns["it_power_w"], columns["meter_power_w"]
    it_w = np.where(np.isfinite(meter), meter, summed)
    with np.errstate(invalid="ignore", divide="ignore"):
        facility_w = np.where(summed > 0, columns["facility_power_w"] * (it_w / summed), np.nan)
    assumed_w = np.nan_to_num(columns["it_assumed_w"])
    return {"it_w": it_w, "facility_w": facility_w, "assumed_w": assumed_w, "water": columns["water_l_per_h"]}


def _fill(columns: dict[str, Floats], rows: Sequence[Row], buckets: Buckets) -> None:
    for row in rows:
        number = buckets.number(row.time_s)
        if 0 <= number < buckets.count:
            for name, column in columns.items():
                value = row.number(name)
                if value is not None:
                    column[number] = value


def _grid_w(store: Store, site: str, meters: Sequence[str], buckets: Buckets) -> Floats:
    """Return the sum of the devices' power per bucket; nan where one of them shows nothing."""
    total = np.zeros(buckets.count)
    for device in meters:
        where = {"site": site, "device": device, "point": "power_w"}
        select = (Select("value", "mean"),)
        query = Query("facility", select, where, every_s=float(BUCKET_S))
        column = {"value": np.full(buckets.count, np.nan)}
        _fill(column, store.query(query, buckets.start_s // BUCKET_S * BUCKET_S, buckets.end_s), buckets)
        total = total + column["value"]
    return total


def _spans(hall: str, mask: npt.NDArray[np.bool_], missing: str, buckets: Buckets) -> list[Gap]:
    """Return the runs of buckets in which something is missing."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    at_s = buckets.edges_s + buckets.start_s
    return [
        Gap(hall, float(at_s[low]), float(at_s[high]), missing)
        for low, high in zip(edges[::2], edges[1::2], strict=True)
    ]
