"""A bill: the halls of a site over a period, from the store, and its lines by job, user, project, tenant or hall."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from powerhall.forecasts.csv_series import CARBON, PRICES, SeriesKind, read_forecast
from powerhall.jobs.owners import Owner, Owners, read_owners
from powerhall.site.site_file import Planning
from powerhall.site.topology import Hall, NodeType, Site
from powerhall.store import Store
from powerhall_optimizer.billing.allocation import Amounts, HallBill, Rates, allocate
from powerhall_optimizer.billing.buckets import Buckets, Floats
from powerhall_optimizer.billing.demand import Peak, peaks_of
from powerhall_optimizer.billing.held import Held, held_parts, read_held
from powerhall_optimizer.billing.job_owners import read_job_owners
from powerhall_optimizer.billing.metered import Gap, read_halls

__all__ = ["LEVELS", "Bill", "JobLine", "Level", "make_bill", "read_rates"]

Level = Literal["job", "user", "project", "tenant", "hall"]
LEVELS: tuple[Level, ...] = ("job", "user", "project", "tenant", "hall")


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job in a hall: whose it is and what it is billed for."""

    job: str
    user: str
    owner: Owner
    hall: str
    amounts: Amounts

    def key(self, level: Level) -> str:
        """Return the name of the line at a level of the bill that it counts in."""
        names = {"user": self.user or "-", "project": self.owner.project, "tenant": self.owner.tenant}
        return {"job": self.job, "hall": self.hall, **names}[level]


@dataclass(frozen=True, slots=True)
class Bill:
    """The bill of a site from `start_s` to `end_s`; `notes` say what is missing or had to be assumed."""

    site: str
    start_s: float
    end_s: float
    lines: tuple[JobLine, ...]
    halls: tuple[HallBill, ...]
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...] = ()
    peaks: tuple[Peak, ...] = ()
    """Peaks of the period's months that demand charges are for."""
    held: tuple[tuple[Held, Owner], ...] = ()
    """The intervals that it is made of, and whose they are."""

    def grouped(self, level: Level) -> dict[str, Amounts]:
        """Return the amounts by name at a level, the dearest in energy first."""
        found: defaultdict[str, Amounts] = defaultdict(Amounts)
        for line in self.lines:
            found[line.key(level)] += line.amounts
        return dict(sorted(found.items(), key=lambda item: (-item[1].energy_j, item[0])))

    def rest(self, what: Literal["idle", "unallocated", "assumed", "meter"]) -> Amounts:
        """Return what no job is billed for of a kind, or the meter: the sum of everything."""
        return sum((getattr(hall, what) for hall in self.halls), Amounts())

    @property
    def jobs(self) -> Amounts:
        """The sum of all jobs."""
        return sum((line.amounts for line in self.lines), Amounts())


def make_bill(
    store: Store,
    site: Site,
    planning: Planning,
    span: tuple[float, float],
    now_s: float,
    *,
    owners: Owners | None = None,
) -> Bill:
    """Read a period from the store and split what its meters show; open intervals go on until `now_s`.

    Files of prices, carbon and owners are those of the site file. Errors of the store and of files are passed on.
    """
    start_s, end_s = span
    buckets = Buckets.of(start_s, min(end_s, max(start_s, now_s)))
    notes = [f"the period ends in the future: {(end_s - buckets.end_s) / 3600:.1f} h are not billed yet"]
    notes = notes if buckets.end_s < end_s else []
    rates, missing = read_rates(planning, buckets)
    owners = read_owners(planning.billing.owners) if owners is None else owners
    halls: list[HallBill] = []
    lines: list[JobLine] = []
    gaps: list[Gap] = []
    said = read_job_owners(store, site.name, buckets.end_s)
    owner_of = cache(lambda job, user: owners.of(job, user, *said.get(job, ())))
    all_held: list[tuple[Held, Owner]] = []
    meters = read_halls(store, site.name, [hall.zone for hall in site.halls], buckets, planning.billing.meters)
    for meter in meters:
        hall = site.hall(meter.hall)
        held = read_held(store, site.name, hall.zone, (start_s, buckets.end_s), now_s)
        kinds = _kinds(site, hall)
        parts = held_parts(held, kinds)
        found = allocate(parts, meter, rates, buckets, kinds)
        halls.append(found)
        gaps += meter.gaps
        if meter.dry.any():
            notes.append(
                f"{hall.zone}: no water for {buckets.lengths_s[meter.dry].sum() / 3600:.1f} h: not counted there"
            )
        lines += [
            JobLine(job, user, owner_of(job, user), hall.zone, amounts) for (job, user), amounts in found.jobs.items()
        ]
        all_held += [(one, owner_of(one.job, one.user_hash)) for one in held]
        unknown = {one.node for one in held} - kinds.keys()
        notes += _hall_notes(found, parts.doubted, sum(one.open for one in held), unknown)
    peaks = tuple(peaks_of(planning.billing.demand_charges, meters, buckets, planning.zone))
    notes += missing
    return Bill(
        site.name, start_s, end_s, tuple(lines), tuple(halls), tuple(gaps), tuple(notes), peaks, tuple(all_held)
    )


def _kinds(site: Site, hall: Hall) -> dict[str, NodeType]:
    return {node: site.node_types[rack.node_type] for rack in hall.racks() for node in rack.nodes}


def _hall_notes(bill: HallBill, doubted: int, still_open: int, unknown: set[str]) -> list[str]:
    notes = []
    if bill.scaled_s:
        hours = bill.scaled_s / 3600
        notes.append(f"{bill.hall}: jobs count less than their GPUs say in {hours:.1f} h, where the meter shows less")
    if doubted:
        notes.append(f"{bill.hall}: the energy of {doubted} intervals cannot be; they count as idle GPUs")
    if still_open:
        notes.append(f"{bill.hall}: {still_open} intervals had not ended; their energy is spread up to now")
    if unknown:
        some = ", ".join(sorted(unknown)[:3])
        notes.append(f"{bill.hall}: {len(unknown)} nodes are not in the site file ({some}); only their GPUs count")
    return notes


def read_rates(planning: Planning, buckets: Buckets) -> tuple[Rates, list[str]]:
    """Return price and carbon intensity by bucket, nan where their files have none, and notes on what is missing."""
    price, no_price = _rate(planning.prices, PRICES, planning, buckets)
    carbon, no_carbon = _rate(planning.carbon, CARBON, planning, buckets)
    return Rates(price, carbon), [*no_price, *no_carbon]


def _rate(path: Path | None, kind: SeriesKind, planning: Planning, buckets: Buckets) -> tuple[Floats, list[str]]:
    if path is None:
        return np.full(buckets.count, np.nan), [f"no {kind.what}: the site file names no file of it"]
    values = buckets.sampled(read_forecast(path, kind, planning.zone, planning.outside))
    hours = float(buckets.lengths_s[~np.isfinite(values)].sum()) / 3600
    note = f"no {kind.what} for {hours:.1f} h, which {path} does not cover: not counted there"
    return values, [note] if hours else []
