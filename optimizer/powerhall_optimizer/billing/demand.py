"""Demand charges: the highest mean power at the meter in a month, in the hours that count, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import msgspec
import numpy as np

from powerhall.plan.demand import DemandTerm
from powerhall.plan.plan import Plan, Snapshot
from powerhall.site.billing import DemandChargeTable
from powerhall.site.site_file import Planning
from powerhall.store import Store
from powerhall.units import format_power
from powerhall_optimizer.billing.buckets import BUCKET_S, Buckets, Floats
from powerhall_optimizer.billing.metered import HallMeter, read_halls
from powerhall_optimizer.billing.period import month_of

__all__ = ["Peak", "counts", "demand_notes", "month_peaks", "peaks_of", "with_demand"]


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest power of a month that counts for a charge, when its interval began, and hours that are not known."""

    charge: DemandChargeTable
    month: str
    power_w: float
    at_s: float | None
    missing_h: float

    @property
    def cost_usd(self) -> float:
        """What the peak costs."""
        return self.power_w / 1000 * self.charge.usd_per_kw


def counts(charge: DemandChargeTable, time_s: float, zone: tzinfo | None) -> bool:
    """Whether the power of an interval that begins at a time counts for a charge."""
    at = datetime.fromtimestamp(time_s, zone or UTC)
    if charge.months and at.month not in charge.months:
        return False
    return charge.from_hour <= at.hour < charge.to_hour and not (charge.weekdays_only and at.weekday() >= 5)


def peaks_of(
    charges: Sequence[DemandChargeTable], meters: Sequence[HallMeter], buckets: Buckets, zone: tzinfo | None
) -> list[Peak]:
    """Return the peak of each charge in each month of a period; intervals with a gap in any hall are not known."""
    site_w = np.sum([meter.facility_w for meter in meters], axis=0)
    return [peak for charge in charges for peak in _peaks(charge, site_w, buckets, zone)]


def _peaks(charge: DemandChargeTable, site_w: Floats, buckets: Buckets, zone: tzinfo | None) -> list[Peak]:
    size = charge.interval_min * 60 // BUCKET_S
    first = -(-int(buckets.start_s) // (size * BUCKET_S)) * size - int(buckets.start_s // BUCKET_S)
    found: dict[str, Peak] = {}
    for low in range(first, buckets.count - size + 1, size):
        begin_s = (int(buckets.start_s // BUCKET_S) + low) * float(BUCKET_S)
        if not counts(charge, begin_s, zone):
            continue
        month = datetime.fromtimestamp(begin_s, zone or UTC).strftime("%Y-%m")
        best = found.get(month, Peak(charge, month, 0.0, None, 0.0))
        mean_w = float(site_w[low : low + size].mean())
        if not np.isfinite(mean_w):
            missing_h = best.missing_h + charge.interval_min / 60
            found[month] = Peak(charge, month, best.power_w, best.at_s, missing_h)
        elif mean_w > best.power_w or best.at_s is None:
            found[month] = Peak(charge, month, mean_w, begin_s, best.missing_h)
    return list(found.values())


def month_peaks(store: Store, site: str, halls: Sequence[str], planning: Planning, now_s: float) -> list[Peak]:
    """Return the peak of each charge in the month so far."""
    start_s = month_of(now_s, planning.zone)[0]
    buckets = Buckets.of(start_s, max(now_s, start_s + BUCKET_S))
    meters = read_halls(store, site, halls, buckets, planning.billing.meters)
    return peaks_of(planning.billing.demand_charges, meters, buckets, planning.zone)


def with_demand(snapshot: Snapshot, planning: Planning, store: Store | None, now_s: float) -> Snapshot:
    """Return the snapshot with the demand charges whose peak of the month so far the store knows."""
    charges = planning.billing.demand_charges
    if not charges or store is None:
        return snapshot
    halls = [hall.zone for hall in snapshot.site.halls]
    found = []
    for peak in month_peaks(store, snapshot.site.name, halls, planning, now_s):
        slots = _slots(snapshot, peak.charge, planning.zone)
        if slots and peak.at_s is not None:
            found.append(DemandTerm(peak.charge.name, peak.charge.usd_per_kw, peak.power_w, slots))
    return msgspec.structs.replace(snapshot, demand=tuple(found))


def _slots(snapshot: Snapshot, charge: DemandChargeTable, zone: tzinfo | None) -> tuple[int, ...]:
    """Return the slots of this month that count for a charge."""
    end_s = month_of(snapshot.start_s, zone)[1]
    starts = ((slot, snapshot.start_s + slot * snapshot.slot_s) for slot in range(snapshot.slots))
    return tuple(slot for slot, at_s in starts if at_s < end_s and counts(charge, at_s, zone))


def demand_notes(plan: Plan, planning: Planning) -> tuple[str, ...]:
    """Return a line for each charge: the plan's highest power that counts, against the month's peak so far."""
    s = plan.snapshot
    planned = next((zone.planned_w for zone in plan.zones if zone.zone == s.site.name), ())
    known = {term.name: term for term in s.demand}
    notes = []
    for charge in planning.billing.demand_charges:
        mine = [(planned[slot], s.start_s + slot * s.slot_s) for slot in _slots(s, charge, planning.zone) if planned]
        if mine:
            most = max(mine, key=lambda entry: (entry[0], -entry[1]))
            notes.append(_note(charge, most, known.get(charge.name), planning.zone))
    return tuple(notes)


def _note(charge: DemandChargeTable, most: tuple[float, float], so_far: DemandTerm | None, zone: tzinfo | None) -> str:
    power_w, at_s = most
    clock = datetime.fromtimestamp(at_s, zone or UTC).strftime("%H:%M")
    head = f"demand charge {charge.name}: the plan's highest power is {format_power(power_w)} at {clock}"
    if so_far is None:
        return f"{head}; the month's peak so far is not known"
    more_w = power_w - so_far.peak_w
    if more_w <= 0:
        return f"{head}, within the {format_power(so_far.peak_w)} of the month so far"
    cost = more_w / 1000 * charge.usd_per_kw
    return f"{head}, {format_power(more_w)} above the {format_power(so_far.peak_w)} so far: up to {cost:,.0f} USD more"
