"""Value and bound without slots: runs begin at any second and take their own length, as schedulers run them.

The bound of `bound` holds for plans, whose jobs start on slots and take whole ones. A certificate proves as much about
runs that do neither: capacities and prices are constant within a slot, so a run pays the integral of its prices, and

    best(job) = max over starts s of  value(s) - integral of its price from s to its end

is the maximum of a function that is linear between kinks: the job's release, starts on a slot, and starts whose end is
on a slot. All of them are looked at. Capacities are the checker's, rounded up, and usage is rounded down; a job larger
than a node needs its own GPUs here and not whole nodes, so that nothing that ran is excluded.

Sums are in float64; each job's best is raised by 1e-12 of the largest number that it is made of, which is a thousand
times what rounding can take off it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from powerhall.jobs import Job
from powerhall.plan.plan import Certificate, Snapshot
from powerhall.site.topology import Mode
from powerhall_optimizer.verify.bound import PricedSite, SitePrices, read_prices
from powerhall_optimizer.verify.capacities import Capacities, Pool
from powerhall_optimizer.verify.curves import ONE
from powerhall_optimizer.verify.meter import SiteMeter
from powerhall_optimizer.verify.options import Option, SiteOptions, unit_usd, value_usd
from powerhall_optimizer.verify.storage_terms import most_value, storage_terms

__all__ = ["AnyStart", "RunValue", "option_at"]

Floats = npt.NDArray[np.float64]
_MARGIN = 1e-12


@dataclass(frozen=True, slots=True)
class RunValue:
    """What a run earns within the horizon in USD: its work, less what its delay and its energy cost."""

    work_usd: float
    delay_usd: float
    energy_usd: float

    @property
    def usd(self) -> float:
        """Return the sum."""
        return self.work_usd - self.delay_usd - self.energy_usd


class _OwnGpus(SiteOptions):
    """Options in which a job uses its own GPUs alone."""

    def _option(self, job: Job, pool: Pool, mode: Mode) -> Option:
        option = super()._option(job, pool, mode)
        return replace(option, uses={**option.uses, pool.gpu_resource: job.gpus})


@dataclass(frozen=True, slots=True)
class _Terms:
    """A waiting job's terms in units of value and seconds since the horizon's begin."""

    worth: float
    work_s: float
    delay_per_s: float
    ready_s: float


class AnyStart:
    """Values of runs at a site, and the bound that a certificate proves for all of them; jobs have no deadlines."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.unit = unit_usd(snapshot)
        self.capacities = Capacities(snapshot)
        self.options = _OwnGpus(snapshot, self.capacities, self.unit)
        self.end_s = float(snapshot.slots * snapshot.slot_s)
        self.edges: Floats = np.arange(snapshot.slots + 1, dtype=float) * snapshot.slot_s
        self._tariff = np.concatenate(([0.0], np.cumsum(np.array(self.options.tariff, float))))

    def terms(self, job: Job) -> _Terms:
        """Return the terms of a job."""
        s = self.snapshot
        worth = value_usd(s, job) / self.unit
        within = worth * min(1.0, self.end_s / job.duration_s)
        ready_s = max(0.0, max(job.submit_s, job.earliest_s or 0.0) - s.start_s)
        return _Terms(worth, job.duration_s, within * s.objective.delay_share / self.end_s, ready_s)

    def earned(self, terms: _Terms, speed: float, start: Floats) -> tuple[Floats, Floats]:
        """Return work and delay of runs from `start`, in units; delay counts from when the job was ready."""
        length_s = terms.work_s / speed
        slow = 1 - self.snapshot.objective.slow_share * (1 / speed - 1)
        stop = np.minimum(start + length_s, self.end_s)
        longer_s = min(length_s, self.end_s) - min(terms.work_s, self.end_s)
        return terms.worth * slow / length_s * (stop - start), terms.delay_per_s * (start - terms.ready_s + longer_s)

    def value(self, job: Job, option: Option, start_s: float) -> RunValue:
        """Return what the job earns when it begins at `start_s` (since the epoch) by this option."""
        terms, begin_s = self.terms(job), start_s - self.snapshot.start_s
        work, delay = self.earned(terms, option.speed, np.array([begin_s]))
        span = np.interp([begin_s, begin_s + terms.work_s / option.speed], self.edges, self._tariff)
        energy = option.energy * float(span[1] - span[0])
        return RunValue(float(work[0]) * self.unit, float(delay[0]) * self.unit, energy * self.unit)

    def bound_usd(self, certificate: Certificate | None) -> float:
        """Return what no schedule of all jobs within the capacities earns more than, in USD.

        Raises PowerhallError or ValueError where the certificate does not fit the snapshot.
        """
        s = self.snapshot
        (prices,) = read_prices(certificate, {"": self.capacities.amounts}, s.slots)
        meter = SiteMeter(self.capacities, prices.points)
        priced = _AnyStartPrices(self, prices)
        total = [prices.of_capacity(self.capacities.amounts, meter) / prices.scale]
        total += [max(0.0, priced.gain(job)) for job in s.jobs]
        total.append(self._storage(certificate, prices, meter))
        return math.fsum(total) * self.unit * (1 + _MARGIN)

    def _storage(self, certificate: Certificate | None, prices: SitePrices, meter: SiteMeter) -> float:
        worth = {} if certificate is None else certificate.stored
        paid, at_meter = meter.prices_of(prices.plain), prices.scale * ONE
        total = Fraction(0)
        for store in storage_terms(self.snapshot, self.capacities, self.unit):
            parts = zip(paid, meter.earned(store.storage), strict=True)
            saved = [Fraction(price * part, at_meter) for price, part in parts]
            total += most_value(store, prices.plain, prices.scale, worth.get(store.storage.name), saved)
        return float(math.ceil(total))


class _AnyStartPrices(PricedSite):
    """The options of a site at the prices of a certificate, with starts at any second."""

    def __init__(self, runs: AnyStart, prices: SitePrices) -> None:
        super().__init__(runs.options, prices)
        self.runs = runs
        self._rows: dict[tuple[object, ...], list[tuple[float, Floats]]] = {}

    def gain(self, job: Job) -> float:
        """Return the most that a job gains when it pays for its usage, in units, rounded up; -inf without an option."""
        key = self.site.key(job)
        if key not in self._rows:
            priced = self._priced(self.site.of(job))
            paid = priced.paid.astype(float) / self.prices.scale
            self._rows[key] = list(zip(priced.speeds, paid, strict=True))
        terms = self.runs.terms(job)
        return max((self._best(terms, *row) for row in self._rows[key]), default=-math.inf)

    def _best(self, terms: _Terms, speed: float, paid: Floats) -> float:
        length_s = terms.work_s / speed
        edges, end_s = self.runs.edges, self.runs.end_s
        start = np.concatenate(([terms.ready_s], edges, edges - length_s))
        start = start[(start >= terms.ready_s) & (start <= end_s)]
        if not start.size:
            return 0.0
        work, delay = self.runs.earned(terms, speed, start)
        cost = np.interp(start + length_s, edges, paid) - np.interp(start, edges, paid)
        size = terms.worth + terms.delay_per_s * (end_s + length_s) + 2 * float(np.abs(paid).max(initial=0.0))
        return float((work - delay - cost).max()) + _MARGIN * size


def option_at(options: Sequence[Option], hall: str | None, node_type: str | None, mode: str | None) -> Option | None:
    """Return the option of this place and mode, None for any; of several the fastest, then the cheapest."""
    wanted = [
        option
        for option in options
        if hall in (None, option.hall) and node_type in (None, option.node_type) and mode in (None, option.mode)
    ]
    return min(wanted, key=lambda option: (-option.speed, option.energy), default=None)
