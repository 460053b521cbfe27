"""The proven bound: an upper bound of every plan's value, from prices of the capacities, in exact integers.

For whole prices p >= 0 over a power of two `scale` (the certificate's), no choice of options within the capacities has
a higher value than

    floor( ( sum over resources and slots of p * capacity  +  sum over jobs of best(job) ) / scale )

    best(job) = max( wait * scale,  max over options and starts of  value * scale - sum over its slots of p * usage )

because a plan within the capacities pays at most `p * capacity` for its usage, and no job gains more than its own best
when it pays for its usage (weak Lagrangian duality). What jobs pay for IT power that the meter counts is at most the
cost of the limit there, by lines below the true curves (`meter`).

It holds for any prices: a wrong price loosens the bound and never
invalidates it. A key `NAME//D` prices the resource counted in whole multiples of D, capacity and usage divided by D and
rounded down: what fits before fits after (Fekete and Schepers 2001).

Sums of prices are taken once per option as prefix sums over the slots, so a start costs one difference. Arrays are
int64 where the largest number that can occur is proven to be below 2**62, and Python integers otherwise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from powerhall.jobs import Job
from powerhall.plan.plan import Certificate, Planned
from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.verify.meter import SiteMeter
from powerhall_optimizer.verify.options import JobTerms, Option, SiteOptions, run_terms
from powerhall_optimizer.verify.period_budgets import PricedBudgets

__all__ = ["PricedSite", "SitePrices", "job_value", "read_prices"]

Ints = npt.NDArray[np.int64]
_SAFE = 1 << 62
Cut = tuple[int, tuple[int, ...]]
"""A divisor, and a price per slot."""


@dataclass(frozen=True, slots=True)
class SitePrices:
    """One site's part of a certificate: whole prices per resource and slot over `scale`, cuts by resource, points."""

    scale: int
    plain: Mapping[str, tuple[int, ...]]
    cuts: Mapping[str, Sequence[Cut]]
    points: Mapping[str, tuple[int, ...]]
    budgets: Mapping[str, int]

    def of_capacity(self, amounts: Mapping[str, Ints], meter: SiteMeter) -> int:
        """Return the cost of all capacity, times `scale`."""
        at_meter = {f"{meter.site}.facility_w", *meter.names} if meter.limit is not None else set()
        total = meter.cost(self.plain)
        total += sum(_product(row, amounts[name].tolist()) for name, row in self.plain.items() if name not in at_meter)
        for name, cuts in self.cuts.items():
            if at_meter and name == f"{meter.site}.facility_w":
                raise Rejected.field("plan", "certificate.prices", name, "is no sum of usage: must not be cut")
            most = meter.most_it_w(name) if name in at_meter else amounts[name].tolist()
            total += sum(_product(row, [amount // divisor for amount in most]) for divisor, row in cuts)
        return total


def _product(row: Sequence[int], amounts: Sequence[int]) -> int:
    return sum(price * amount for price, amount in zip(row, amounts, strict=True))


def read_prices(
    certificate: Certificate | None, sites: Mapping[str, Mapping[str, Ints]], slots: int
) -> list[SitePrices]:
    """Return the prices of each site; `sites` has the capacities by the front that names have in the certificate.

    Without a certificate all prices are 0. A price that fits none of these capacities raises Rejected or ValueError.
    """
    scale = 1 if certificate is None else certificate.scale
    if scale < 1 or scale & (scale - 1):
        raise Rejected.field("plan", "certificate.scale", scale, "must be a power of two")
    owners = {front + name: (front, name) for front, amounts in sites.items() for name in amounts}
    plain: dict[str, dict[str, tuple[int, ...]]] = {front: {} for front in sites}
    cuts: dict[str, dict[str, list[Cut]]] = {front: {} for front in sites}
    for key, row in ({} if certificate is None else certificate.prices).items():
        full, cut, divisor = (key, "", "") if key in owners else key.rpartition("//")
        if full not in owners or (cut and not digits(divisor)):
            raise Rejected.field("plan", "certificate.prices", key, "must name a resource, with one price per slot")
        if len(row) != slots:
            raise Rejected.field("plan", f"certificate.prices.{key}", len(row), f"must be {slots} prices")
        if min(row) < 0:
            raise Rejected.field("plan", f"certificate.prices.{key}", min(row), "must not be negative")
        front, name = owners[full]
        if cut:
            cuts[front].setdefault(name, []).append((int(divisor), row))
        else:
            plain[front][name] = row
    points = _points(certificate, sites, slots)
    budgets = {} if certificate is None else certificate.budgets
    if budgets and len(sites) > 1:
        raise Rejected.field("plan", "certificate.budgets", len(budgets), "must be empty in a plan of several sites")
    return [SitePrices(scale, plain[front], cuts[front], points[front], budgets) for front in sites]


def _points(
    certificate: Certificate | None, sites: Mapping[str, object], slots: int
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return each site's points, by names without the site's front; a name that fits no curve changes nothing."""
    found: dict[str, dict[str, tuple[int, ...]]] = {front: {} for front in sites}
    for key, row in ({} if certificate is None else certificate.points).items():
        front = next((front for front in sorted(sites, key=len, reverse=True) if key.startswith(front)), None)
        if front is None or len(row) != slots:
            raise Rejected.field("plan", f"certificate.points.{key}", len(row), f"must be {slots} numbers of a site")
        found[front][key.removeprefix(front)] = row
    return found


@dataclass(frozen=True, slots=True)
class _Priced:
    """Options of one kind of job: different (speed, price) pairs as rows, and which options stand behind each.

    `paid[row, t]` is the cost of the slots before t, energy included, times the scale; none exceeds `most` in size.
    """

    speeds: list[float]
    options: list[list[Option]]
    paid: npt.NDArray[np.generic]
    most: int


class PricedSite:
    """The options of a site at the prices of a certificate."""

    def __init__(self, options: SiteOptions, prices: SitePrices) -> None:
        self.site = options
        self.snapshot = options.snapshot
        self.prices = prices
        self.budgets = PricedBudgets(options.snapshot, prices.budgets)
        self.tariff_size = prices.scale * sum(abs(price) for price in options.tariff)
        self.known: dict[tuple[object, ...], _Priced] = {}
        self.sums = {name: [0, *accumulate(row)] for name, row in prices.plain.items()}
        self.cut_sums = {
            name: [(divisor, [0, *accumulate(row)]) for divisor, row in cuts] for name, cuts in prices.cuts.items()
        }
        self.tariff_sums = [0, *accumulate(prices.scale * price for price in options.tariff)]

    def best(self, job: Job, terms: JobTerms, planned: Planned | None) -> int | None:
        """Return the highest gain of the job by running here, times the scale; None where it has no option."""
        if terms.first > terms.last or terms.stops == 0:
            return None
        key = self.site.key(job)
        if key not in self.known:
            self.known[key] = self._priced(self.site.of(job))
        priced = self.known[key]
        rows = [(row, moved) for row, group in enumerate(priced.options) for moved in self._moves(job, group, planned)]
        if not rows:
            return None
        runs = [run_terms(self.snapshot, job, terms, priced.speeds[row], moved) for row, moved in rows]
        length, rate, constant = zip(*runs, strict=True)
        size = self.prices.scale * _largest(terms, max(length), max(rate), max(map(abs, constant)), self.snapshot.slots)
        kind = np.int64 if size + 2 * priced.most < _SAFE else object
        paid = priced.paid[[row for row, _ in rows]].astype(kind, copy=False)
        starts = np.arange(terms.first, terms.last + 1, dtype=np.int64).astype(kind)
        columns = [np.array(column, kind)[:, None] for column in (length, rate, constant)]
        value, stop = job_value(terms, columns, starts, self.snapshot.slots)
        cost = np.take_along_axis(paid, stop.astype(np.int64), 1) - paid[:, terms.first : terms.last + 1]
        cost = cost + self.budgets.cost(job, [priced.options[row] for row, _ in rows], columns[0], starts)
        gain = (value * self.prices.scale - cost)[columns[0] + starts <= terms.deadline]
        return int(gain.max()) if gain.size else None

    def of_budgets(self, jobs: Sequence[Job], stops: Mapping[str, int]) -> int:
        """Return the cost of all budgets over a period, times `scale`; running jobs may use more than is left."""
        if not self.budgets.priced:
            return 0
        running = [(job, self.site.of(job)) for job in jobs if job.state == "running" and stops.get(job.job_id) != 0]
        slot_s = self.snapshot.slot_s
        return self.budgets.of_capacity(
            [
                (job, options, max(math.ceil(job.duration_s / option.speed / slot_s) + 1 for option in options))
                for job, options in running
                if options
            ]
        )

    def _moves(self, job: Job, options: Sequence[Option], planned: Planned | None) -> set[bool]:
        if planned is None and job.state == "waiting":
            return {False}
        return {self.site.is_moved(job, option, planned) for option in options}

    def _priced(self, options: Sequence[Option]) -> _Priced:
        groups: dict[tuple[float, bytes | tuple[int, ...]], list[Option]] = {}
        found: list[npt.NDArray[np.generic]] = []
        most = max((self._size(option) for option in options), default=0)
        kind = np.int64 if most < _SAFE else object
        for option in options:
            paid = self._paid(option, kind)
            key = option.speed, paid.tobytes() if kind is np.int64 else tuple(paid.tolist())
            if key not in groups:
                groups[key] = []
                found.append(paid)
            groups[key].append(option)
        speeds = [speed for speed, _ in groups]
        return _Priced(
            speeds, list(groups.values()), np.array(found, kind).reshape(len(found), self.snapshot.slots + 1), most
        )

    def _size(self, option: Option) -> int:
        """An upper bound of every number in the option's prefix sums: prices are not negative, tariffs may be."""
        total = abs(option.energy) * self.tariff_size
        for name, amount in option.uses.items():
            total += amount * (self.sums[name][-1] if name in self.sums else 0)
            total += sum(amount // divisor * sums[-1] for divisor, sums in self.cut_sums.get(name, ()))
        if option.part is not None and option.part[0] in self.sums:
            total += self.sums[option.part[0]][-1]
        return total

    def _paid(self, option: Option, kind: type) -> npt.NDArray[np.generic]:
        """Return the option's cost of the slots before each slot, energy included, times the scale."""
        paid: npt.NDArray[np.generic] = option.energy * np.array(self.tariff_sums, kind)
        for name, amount in option.uses.items():
            if name in self.sums:
                paid = paid + amount * np.array(self.sums[name], kind)
            for divisor, sums in self.cut_sums.get(name, ()):
                paid = paid + amount // divisor * np.array(sums, kind)
        if option.part is not None and option.part[0] in self.prices.plain:
            name, part = option.part
            row = (price * part.numerator // part.denominator for price in self.prices.plain[name])
            paid = paid + np.array([0, *accumulate(row)], kind)
        return paid


def _largest(terms: JobTerms, length: int, rate: int, constant: int, slots: int) -> int:
    """Return an upper bound of the size of every value of a job, and of every sum on the way to it."""
    ends = slots + length
    return constant + rate * slots + terms.delay * ends + terms.shift * (slots + abs(terms.planned))


def job_value(terms: JobTerms, run: Sequence[Ints] | Ints, start: Ints, slots: int) -> tuple[Ints, Ints]:
    """Return (value without energy, slot in which run or horizon end) of runs that begin in `start`.

        constant + rate * slots inside the horizon - delay * end - shift * |start - planned|

    `run` is (length, rate, constant) of `run_terms`.
    """
    length, rate, constant = run
    end = start + length
    stop = np.minimum(end, slots)
    value = constant + rate * (stop - start) - terms.delay * end
    if terms.planned >= 0 and terms.shift:
        value = value - terms.shift * np.abs(start - terms.planned)
    return value, stop
