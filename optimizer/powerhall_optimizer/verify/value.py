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
from powerhall_optimizer.verify.options import JobTerms, SiteOptions, job_terms, run_terms, unit_usd
from powerhall_optimizer.verify.storage_terms import dispatch_cost, most_value, storage_terms

__all__ = ["multi_site_value_and_bound", "value_and_bound"]


@dataclass(frozen=True, slots=True)
class _Site:
    """One site: the front of its names in the certificate, its whole numbers, and its planned jobs."""

    front: str
    snapshot: Snapshot
    capacities: Capacities
    options: SiteOptions
    plan: Plan


def value_and_bound(plan: Plan) -> tuple[int, int]:
    """Return the plan's value and the bound that its certificate proves; without one, that of prices of 0.

    ValueError or PowerhallError where an assignment or the certificate fits nothing in the snapshot.
    """
    unit = unit_usd(plan.snapshot)
    return _value_and_bound([_site("", plan.snapshot, plan, unit)], plan.snapshot.jobs, plan.certificate, unit)


def multi_site_value_and_bound(plan: MultiSitePlan) -> tuple[int, int]:
    """Return value and proven bound of the plans of several sites: the whole queue may run at every site."""
    snapshots = [msgspec.structs.replace(part.snapshot, jobs=plan.jobs) for part in plan.plans]
    unit = unit_usd(snapshots[0])
    sites = [_site(f"{s.site.name}:", s, part, unit) for s, part in zip(snapshots, plan.plans, strict=True)]
    return _value_and_bound(sites, plan.jobs, plan.certificate, unit)


def _site(front: str, snapshot: Snapshot, plan: Plan, unit: float) -> _Site:
    capacities = Capacities(snapshot)
    return _Site(front, snapshot, capacities, SiteOptions(snapshot, capacities, unit), plan)


def _value_and_bound(
    sites: Sequence[_Site], jobs: Sequence[Job], certificate: Certificate | None, unit: float
) -> tuple[int, int]:
    horizon = sites[0].snapshot
    stops = {job: slots for site in sites for job, slots in _stops(site.plan).items()}
    assigned = {entry.job_id: (site, entry) for site in sites for entry in site.plan.assignments}
    planned = {entry.job_id: entry for entry in horizon.planned}
    prices = read_prices(certificate, {site.front: site.capacities.amounts for site in sites}, horizon.slots)
    priced = [PricedSite(site.options, own) for site, own in zip(sites, prices, strict=True)]
    total = sum(own.of_capacity(site.capacities.amounts) for site, own in zip(sites, prices, strict=True))
    value = 0
    for job in jobs:
        last = planned.get(job.job_id)
        terms = job_terms(horizon, job, unit, last, stops.get(job.job_id))
        gains = [gain for site in priced if (gain := site.best(job, terms, last)) is not None]
        total += max([terms.wait * prices[0].scale, *gains])
        value += _planned_value(job, terms, last, *assigned[job.job_id]) if job.job_id in assigned else terms.wait
    stored = certificate.stored if certificate is not None else {}
    cost, most = _stores(sites, prices, stored, unit)
    return value - cost, total // prices[0].scale + most


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


def _stores(
    sites: Sequence[_Site], prices: Sequence[SitePrices], worth: Mapping[str, Sequence[int]], unit: float
) -> tuple[int, int]:
    """Return the cost of all storage as planned, and an upper bound of its value; both rounded up."""
    cost, most = 0, Fraction(0)
    for site, own in zip(sites, prices, strict=True):
        stores = storage_terms(site.snapshot, site.capacities, unit)
        if any(own.cuts.keys() & store.effects.keys() for store in stores):
            raise ValueError("certificate: a resource that storage adds to must not be priced in whole multiples")
        powers = {entry.name: entry.power_w for entry in site.plan.storages}
        cost += math.ceil(sum(dispatch_cost(store, powers.get(store.storage.name, ())) for store in stores))
        for store in stores:
            most += most_value(store, own.plain, own.scale, worth.get(site.front + store.storage.name))
    return cost, math.ceil(most)
