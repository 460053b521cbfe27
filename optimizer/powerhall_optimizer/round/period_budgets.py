"""Budgets of tenants in a round: who owns which job, what the month's bills say was used, and what that leaves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import msgspec

from powerhall.jobs import Job
from powerhall.jobs.owners import NOBODY, Owners
from powerhall.physics.cooling import hall_load
from powerhall.physics.weather import Weather
from powerhall.plan.period_budget import PeriodBudget
from powerhall.plan.plan import Snapshot
from powerhall.runtime.log import Log
from powerhall.site.billing import Allowance, AllowanceKind, owners_of
from powerhall.site.site_file import Planning
from powerhall.site.topology import Hall, Site
from powerhall.store import Store
from powerhall_optimizer.billing.allocation import Amounts
from powerhall_optimizer.billing.bill import Bill, make_bill
from powerhall_optimizer.billing.period import month_of
from powerhall_optimizer.round.unseen_use import held_by_tenant, unseen_it_j

__all__ = ["site_per_it", "with_period_budgets"]

replace = msgspec.structs.replace
_MOST_MONTHS = 13


def with_period_budgets(
    snapshot: Snapshot, planning: Planning, store: Store | None, now_s: float, log: Log
) -> Snapshot:
    """Return the snapshot with the owners of its jobs and the budgets of its months; nothing changes without any.

    Without a store it is not known what was used: the whole budget counts as used.
    """
    allowances = planning.billing.budgets
    if not allowances:
        return snapshot
    owners = owners_of(planning.billing)
    snapshot = replace(snapshot, jobs=tuple(_owned(job, owners) for job in snapshot.jobs))
    for tenant in sorted({each.tenant for each in allowances} - owners.tenants() - {j.tenant for j in snapshot.jobs}):
        log.warning("period_budget_unknown_tenant", tenant=tenant)
    months = list(_months(snapshot, planning.zone))
    first_s = months[0][0]
    bill = None
    if store is not None:
        bill = make_bill(store, snapshot.site, planning, (first_s, max(now_s, first_s + 1.0)), now_s, owners=owners)
    by_tenant = None if bill is None else bill.grouped("tenant")
    if by_tenant and NOBODY in by_tenant:
        log.warning("period_budget_unowned", energy_kwh=by_tenant[NOBODY].energy_j / 3.6e6)
    ratio = max(site_per_it(snapshot), *_measured_ratios(bill))
    unseen_j = {} if bill is None else unseen_it_j(snapshot, bill, now_s)
    held = held_by_tenant(snapshot, owners)
    rates = max([0.0, *snapshot.price_per_mwh]), max([0.0, *snapshot.carbon_g_per_kwh])
    worst = _Worst(by_tenant, unseen_j, ratio, *rates)
    budgets = tuple(
        PeriodBudget(
            f"{each.tenant}.{each.kind}.{month}",
            each.tenant,
            each.kind,
            each.limit,
            worst.used(each) if start_s == first_s else 0.0,
            int(start_s),
            int(end_s),
            ratio,
            f"{each.text} of {month}",
            worst.of_it(each.kind, sum(run.it_j(start_s, end_s) for run in held.get(each.tenant, ()))),
        )
        for start_s, end_s in months
        for month in [datetime.fromtimestamp(start_s, planning.zone or UTC).strftime("%Y-%m")]
        for each in allowances
    )
    for budget in budgets:
        share = (budget.used + budget.held) / budget.limit
        (log.warning if share >= 1 else log.info)("period_budget", name=budget.name, used_share=share)
    return replace(snapshot, period_budgets=budgets)


def _months(snapshot: Snapshot, zone: tzinfo | None) -> Iterator[tuple[float, float]]:
    """Yield the months that the plan and all runs that it may start reach into, at most a year of them."""
    slowest = min(mode.speed for kind in snapshot.site.node_types.values() for mode in kind.modes)
    slowest = min([slowest, *(s for each in snapshot.site.job_classes.values() for s in each.speed.values())])
    longest_s = max((job.duration_s for job in snapshot.jobs if job.tenant is not None), default=0.0)
    end_s = snapshot.start_s + (snapshot.slots + 1) * snapshot.slot_s + longest_s / slowest
    month = month_of(snapshot.start_s, zone)
    for _ in range(_MOST_MONTHS):
        yield month
        if month[1] >= end_s:
            return
        month = month_of(month[1], zone)


def _owned(job: Job, owners: Owners) -> Job:
    owner = owners.of(job.billed_as or job.job_id, project=job.project or "", tenant=job.tenant or "")
    names = (None if name == NOBODY else name for name in (owner.project, owner.tenant))
    project, tenant = names
    return replace(job, project=project, tenant=tenant)


def _measured_ratios(bill: Bill | None) -> list[float]:
    """Return the mean power at the meter per W of IT of each hall over the bill."""
    halls = () if bill is None else bill.halls
    return [1.0, *(hall.meter.energy_j / hall.meter.it_j for hall in halls if hall.meter.it_j > 0)]


@dataclass(frozen=True, slots=True)
class _Worst:
    """What tenants have used so far by the month's bill (None: not known), and what a J costs at its worst.

    `unseen_j` is what may have been drawn beside the bill, in J of IT.
    """

    by_tenant: Mapping[str, Amounts] | None
    unseen_j: Mapping[str, float]
    ratio: float
    usd_per_mwh: float
    g_per_kwh: float

    def of_it(self, kind: AllowanceKind, it_j: float) -> float:
        """Return what IT energy uses of a budget of a kind."""
        per_j = {"energy": 1.0, "cost": self.usd_per_mwh / 3.6e9, "co2": self.g_per_kwh / 3.6e6}
        return it_j * self.ratio * per_j[kind]

    def used(self, allowance: Allowance) -> float:
        """Return what is used of a budget; gaps of the meter, of prices and of carbon count at their worst."""
        if self.by_tenant is None:
            return allowance.limit
        amounts = self.by_tenant.get(allowance.tenant, Amounts())
        hidden_j = (amounts.unmetered_j + self.unseen_j.get(allowance.tenant, 0.0)) * self.ratio
        if allowance.kind == "energy":
            return amounts.energy_j + hidden_j
        if allowance.kind == "cost":
            return max(0.0, amounts.cost_usd) + (amounts.unpriced_j + hidden_j) / 3.6e9 * self.usd_per_mwh
        return amounts.co2_g + (amounts.uncounted_j + hidden_j) / 3.6e6 * self.g_per_kwh


def site_per_it(snapshot: Snapshot) -> float:
    """Return the highest power at the meter per W of IT of any hall: idle, half and fully loaded, in its weather."""
    dry_c, wet_c = snapshot.dry_bulb_c or (0.0,), snapshot.wet_bulb_c or (0.0,)
    airs = {(round(dry, 1), round(wet, 1)) for dry, wet in zip(dry_c, wet_c, strict=True)}
    return max([1.0, *_ratios(snapshot.site, [Weather(dry, wet) for dry, wet in sorted(airs)])])


def _ratios(site: Site, airs: Sequence[Weather]) -> Iterator[float]:
    for hall in site.halls:
        for liquid_w, air_w in _loads(site, hall):
            for air in airs:
                load = hall_load(hall, liquid_w, air_w, air)
                yield load.facility_power_w / load.it_power_w if load.it_power_w > 0 else 1.0


def _loads(site: Site, hall: Hall) -> Iterator[tuple[float, float]]:
    """Yield heat to liquid and to air of the hall when idle, half and fully loaded."""
    for part in (0.0, 0.5, 1.0):
        liquid_w = air_w = 0.0
        for rack in hall.racks():
            kind = site.node_types[rack.node_type]
            watts = len(rack.nodes) * (kind.idle_power_w + part * (kind.max_power_w - kind.idle_power_w))
            liquid_w += kind.liquid_fraction * watts
            air_w += (1.0 - kind.liquid_fraction) * watts
        yield liquid_w, air_w
