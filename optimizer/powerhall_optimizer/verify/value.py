"""Value and proven bound of a plan, recomputed from plan.json alone in whole units of value.

The value is the sum over assignments and waiting jobs, less the cost of storage (rounded up). The bound is that of the
jobs (`bound.py`, rounded down) and of storage (`storage_terms.py`, rounded up: two parts that are both rounded down
could come out one too low). A plan is within it because both parts are upper bounds of any plan's value at the same
prices.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import msgspec
import numpy as np

from powerhall.jobs import Job
from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Assignment, Certificate, Plan, Planned, Snapshot, WaitCode
from powerhall_optimizer.verify.bound import PricedSite, SitePrices, job_value, read_prices
from powerhall_optimizer.verify.capacities import Capacities
from powerhall_optimizer.verify.curves import ONE
from powerhall_optimizer.verify.demand import demand_cost, saved_by_peaks
from powerhall_optimizer.verify.meter import SiteMeter
from powerhall_optimizer.verify.options import JobTerms, SiteOptions, job_terms, run_terms, unit_usd
from powerhall_optimizer.verify.storage_terms import dispatch_cost, most_value, storage_terms

__all__ = ["gains_of", "multi_site_value_and_bound", "proven_bound", "value_and_bound"]


@dataclass(frozen=True, slots=True)
class _Site:
    """One site: the front of its names in the certificate, and its whole numbers."""

    front: str
    snapshot: Snapshot
    capacities: Capacities
    options: SiteOptions


def value_and_bound(plan: Plan) -> tuple[int, int]:
    """Return the plan's value and the bound that its certificate proves; without one, that of prices of 0.

    ValueError or PowerhallError where an assignment or the certificate fits nothing in the snapshot.
    """
    sites = _sites([plan.snapshot], {"": plan.snapshot})
    value = _value(sites, [plan], plan.snapshot.jobs) - demand_cost(plan, unit_usd(plan.snapshot))
    return value, _bound(sites, plan.snapshot.jobs, plan.certificate, _stops(plan))


def multi_site_value_and_bound(plan: MultiSitePlan) -> tuple[int, int]:
    """Return value and proven bound of the plans of several sites: the whole queue may run at every site."""
    snapshots = [msgspec.structs.replace(part.snapshot, jobs=plan.jobs) for part in plan.plans]
    sites = _sites(snapshots, {f"{s.site.name}:": s for s in snapshots})
    stops = {job: slots for part in plan.plans for job, slots in _stops(part).items()}
    return _value(sites, plan.plans, plan.jobs), _bound(sites, plan.jobs, plan.certificate, stops)


def proven_bound(
    snapshots: Sequence[Snapshot],
    certificate: Certificate | None,
    stops: Mapping[str, int],
    *,
    joint: bool = False,
    gains: int | None = None,
) -> int:
    """Return the bound that a certificate proves for every plan of these sites, which all have the whole queue.

    `stops` has the running jobs that the plan sheds, with the slots that they still run; names in a `joint`
    certificate have their site in front. `gains` is the sum of `gains_of` over all jobs, where others have computed it.
    """
    sites = _sites(snapshots, {f"{s.site.name}:" if joint else "": s for s in snapshots})
    return _bound(sites, snapshots[0].jobs, certificate, stops, gains)


def gains_of(
    snapshots: Sequence[Snapshot],
    certificate: Certificate | None,
    stops: Mapping[str, int],
    jobs: slice,
    *,
    joint: bool = False,
) -> int:
    """Return the part that some of the jobs have in a bound, in whole units of the certificate's scale."""
    sites = _sites(snapshots, {f"{s.site.name}:" if joint else "": s for s in snapshots})
    prices = read_prices(certificate, {site.front: site.capacities.amounts for site in sites}, snapshots[0].slots)
    return _gains(sites, prices, snapshots[0].jobs[jobs], stops)


def _sites(snapshots: Sequence[Snapshot], fronts: Mapping[str, Snapshot]) -> list[_Site]:
    unit = unit_usd(snapshots[0])
    found: list[_Site] = []
    for front, snapshot in fronts.items():
        capacities = Capacities(snapshot)
        found.append(_Site(front, snapshot, capacities, SiteOptions(snapshot, capacities, unit)))
    return found


def _value(sites: Sequence[_Site], plans: Sequence[Plan], jobs: Sequence[Job]) -> int:
    """Return the value of plans: that of every job, less the cost of storage, rounded up per site."""
    horizon, unit = sites[0].snapshot, unit_usd(sites[0].snapshot)
    assigned = {e.job_id: (site, e) for site, plan in zip(sites, plans, strict=True) for e in plan.assignments}
    stops = {job: slots for plan in plans for job, slots in _stops(plan).items()}
    planned = {entry.job_id: entry for entry in horizon.planned}
    value = 0
    for job in jobs:
        last = planned.get(job.job_id)
        terms = job_terms(horizon, job, unit, last, stops.get(job.job_id))
        value += _planned_value(job, terms, last, *assigned[job.job_id]) if job.job_id in assigned else terms.wait
    for site, plan in zip(sites, plans, strict=True):
        powers = {entry.name: entry.power_w for entry in plan.storages}
        stores = storage_terms(site.snapshot, site.capacities, unit)
        value -= math.ceil(sum(dispatch_cost(store, powers.get(store.storage.name, ())) for store in stores))
    return value


def _bound(
    sites: Sequence[_Site],
    jobs: Sequence[Job],
    certificate: Certificate | None,
    stops: Mapping[str, int],
    gains: int | None = None,
) -> int:
    """Return the bound: the cost of all capacity, each job's best at the prices, and the most that storage gains."""
    unit = unit_usd(sites[0].snapshot)
    prices = read_prices(certificate, {site.front: site.capacities.amounts for site in sites}, sites[0].snapshot.slots)
    meters = [SiteMeter(site.capacities, own.points) for site, own in zip(sites, prices, strict=True)]
    priced = [PricedSite(site.options, own) for site, own in zip(sites, prices, strict=True)]
    total = _gains(sites, prices, jobs, stops) if gains is None else gains
    for site, own, meter in zip(sites, prices, meters, strict=True):
        total += own.of_capacity(site.capacities.amounts, meter)
    total += sum(site.of_budgets(jobs, stops) for site in priced)
    for site, own, meter in zip(sites, prices, meters, strict=True):
        if site.snapshot.demand and meter.limit is not None:
            paid = meter.prices_of(own.plain)
            total -= saved_by_peaks(site.snapshot, paid, meter.limit.tolist(), own.scale, unit)
    stored = certificate.stored if certificate is not None else {}
    most = sum((_most(*part, stored, unit) for part in zip(sites, prices, meters, strict=True)), Fraction(0))
    return total // prices[0].scale + math.ceil(most)


def _gains(sites: Sequence[_Site], prices: Sequence[SitePrices], jobs: Sequence[Job], stops: Mapping[str, int]) -> int:
    """Return the sum of each job's best at the prices, in whole units of their scale."""
    horizon, unit = sites[0].snapshot, unit_usd(sites[0].snapshot)
    planned = {entry.job_id: entry for entry in horizon.planned}
    priced = [PricedSite(site.options, own) for site, own in zip(sites, prices, strict=True)]
    total = 0
    for job in jobs:
        last = planned.get(job.job_id)
        terms = job_terms(horizon, job, unit, last, stops.get(job.job_id))
        gains = [gain for site in priced if (gain := site.best(job, terms, last)) is not None]
        total += max([terms.wait * prices[0].scale, *gains])
    return total


def _stops(plan: Plan) -> dict[str, int]:
    """Return for each running job that the plan sheds how many slots it still runs."""
    s = plan.snapshot
    slots = {entry.job_id: (entry.end_s - entry.start_s) // s.slot_s for entry in plan.assignments}
    return {entry.job_id: slots.get(entry.job_id, 0) for entry in plan.waiting if entry.code == WaitCode.SHED}


def _planned_value(job: Job, terms: JobTerms, planned: Planned | None, site: _Site, entry: Assignment) -> int:
    """Return the value of an assignment: the formula of `job_value` for one start, less its energy."""
    s = site.snapshot
    start = (entry.start_s - s.start_s) // s.slot_s
    where = entry.hall, entry.node_type, entry.mode
    options = site.options.of(job) if terms.stops != 0 and terms.first <= start <= terms.last else ()
    option = next((o for o in options if (o.hall, o.node_type, o.mode) == where), None)
    if option is None:
        raise ValueError(f"assignment of {job.job_id}: {', '.join(where)} from slot {start} is no option of the job")
    moved = site.options.is_moved(job, option, planned)
    run = np.array(run_terms(s, job, terms, option.speed, moved), object)  # Python integers: nothing can overflow
    value, stop = job_value(terms, run[:, None], np.array([start], object), s.slots)
    return int(value[0]) - option.energy * sum(site.options.tariff[start : int(stop[0])])


def _most(
    site: _Site, prices: SitePrices, meter: SiteMeter, worth: Mapping[str, Sequence[int]], unit: float
) -> Fraction:
    """Return an upper bound of what all storage of a site gains at the prices."""
    at_meter = prices.scale * ONE
    paid = meter.prices_of(prices.plain)
    total = Fraction(0)
    for store in storage_terms(site.snapshot, site.capacities, unit):
        touched = {*store.effects, *(meter.names if meter.limit is not None else ())}
        if prices.cuts.keys() & touched:
            raise ValueError("certificate: a resource that storage adds to must not be priced in whole multiples")
        saved = [Fraction(lam * part, at_meter) for lam, part in zip(paid, meter.earned(store.storage), strict=True)]
        name = site.front + store.storage.name
        total += most_value(store, prices.plain, prices.scale, worth.get(name), saved)
    return total
