"""Splits what a hall's meter shows among jobs, idle GPUs and the rest, bucket by bucket.

In each bucket, of the hall's metered IT energy: first the jobs by their intervals, then the idle power of GPUs that
nobody held. Where these together are more than the meter shows, idle gives way first, then all jobs in proportion. What
is left is said apart: as `assumed` as far as the roll-up counted silent nodes at their worst, and as `unallocated`.
Cooling, losses and water follow IT energy, so that every line bears the hall's PUE of the moment; cost and CO2 follow
from the price and the carbon intensity of the moment. So the lines of a hall sum up to its meter. Nothing is billed
where the meter has a gap: what jobs drew meanwhile is told as unmetered.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from powerhall.site.topology import NodeType
from powerhall_optimizer.billing.buckets import Buckets, Floats
from powerhall_optimizer.billing.held import HeldParts
from powerhall_optimizer.billing.metered import HallMeter

__all__ = ["Amounts", "HallBill", "Rates", "allocate"]


@dataclass(frozen=True, slots=True)
class Amounts:
    """What one line of a bill says; energies in J, `gpu_s` in GPU seconds, cost in USD, CO2 in g, water in l.

    `board_j` is the energy of the GPUs alone, `unmetered_j` IT energy in gaps of the meter, in no other figure.
    `unpriced_j` and `uncounted_j` are the parts of `energy_j` without a price and without a carbon intensity.
    """

    gpu_s: float = 0.0
    board_j: float = 0.0
    it_j: float = 0.0
    energy_j: float = 0.0
    cost_usd: float = 0.0
    co2_g: float = 0.0
    water_l: float = 0.0
    unmetered_j: float = 0.0
    unpriced_j: float = 0.0
    uncounted_j: float = 0.0

    def __add__(self, other: "Amounts") -> "Amounts":
        """Return the sum of two lines."""
        return Amounts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Rates:
    """Price in USD per MWh and carbon intensity in g per kWh in each bucket; nan where they are not known."""

    usd_per_mwh: Floats
    g_per_kwh: Floats


@dataclass(frozen=True, slots=True)
class HallBill:
    """The bill of one hall: amounts by (job, user), and what no job is billed for. `meter` is the sum of all."""

    hall: str
    jobs: Mapping[tuple[str, str], Amounts]
    idle: Amounts
    unallocated: Amounts
    assumed: Amounts
    meter: Amounts
    scaled_s: float
    """Seconds in which jobs were billed less than their intervals say, since the meter shows less."""


def allocate(
    parts: HeldParts, meter: HallMeter, rates: Rates, buckets: Buckets, kinds: Mapping[str, NodeType]
) -> HallBill:
    """Return the bill of a hall; `kinds` has the type of each of its nodes."""
    known, lengths_s = meter.known, buckets.lengths_s
    it_j = np.nan_to_num(meter.it_w) * lengths_s
    jobs_j = buckets.energy_j(parts.start_s, parts.end_s, parts.it_w)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(jobs_j > it_j, it_j / jobs_j, 1.0) * known
        per_it = np.where(it_j > 0, np.nan_to_num(meter.facility_w) * lengths_s / it_j, 0.0)
        water = np.where(it_j > 0, np.nan_to_num(meter.water_l_per_h) / 3600.0 * lengths_s / it_j, 0.0)
    billed_j = jobs_j * scale
    idle_j = np.minimum(_idle_j(parts, buckets, kinds), it_j - billed_j) * known
    rest_j = np.maximum(0.0, it_j - billed_j - idle_j)
    assumed_j = np.minimum(rest_j, np.nan_to_num(meter.assumed_w) * lengths_s)
    shares = _Shares(per_it, water, rates)
    lines = _job_lines(parts, buckets, scale, known, shares)
    over = (scale < 1.0 - 1e-9) & (known > 0)
    return HallBill(
        meter.hall,
        lines,
        shares.of(idle_j),
        shares.of(rest_j - assumed_j),
        shares.of(assumed_j),
        shares.of(it_j),
        float(lengths_s[over].sum()),
    )


def _idle_j(parts: HeldParts, buckets: Buckets, kinds: Mapping[str, NodeType]) -> Floats:
    """Return the idle energy per bucket of the GPUs that nobody holds."""
    total = np.zeros(buckets.count)
    nodes = [parts.held[number].node for number in parts.interval.tolist()]
    of_part = [kinds[node].name if node in kinds else "" for node in nodes]
    counts: Counter[str] = Counter()
    for kind in kinds.values():
        counts[kind.name] += kind.gpus
    for kind in {kind.name: kind for kind in kinds.values()}.values():
        mine = np.array([name == kind.name for name in of_part], bool)
        used_s = buckets.energy_j(parts.start_s[mine], parts.end_s[mine], parts.gpus[mine])
        total += np.maximum(0.0, counts[kind.name] * buckets.lengths_s - used_s) * kind.idle_gpu_power_w
    return total


@dataclass(frozen=True, slots=True)
class _Shares:
    """What comes with a J of IT energy in each bucket: J at the meter, l of water; and the rates."""

    per_it: Floats
    water_l: Floats
    rates: Rates

    def columns(self) -> dict[str, Floats]:
        """Return for each amount what a J of IT energy adds to it, per bucket."""
        price, carbon = self.rates.usd_per_mwh, self.rates.g_per_kwh
        return {
            "it_j": np.ones(len(self.per_it)),
            "energy_j": self.per_it,
            "cost_usd": self.per_it * np.nan_to_num(price) / 3.6e9,
            "co2_g": self.per_it * np.nan_to_num(carbon) / 3.6e6,
            "water_l": self.water_l,
            "unpriced_j": self.per_it * ~np.isfinite(price),
            "uncounted_j": self.per_it * ~np.isfinite(carbon),
        }

    def of(self, it_j: Floats) -> Amounts:
        """Return the amounts of IT energy per bucket."""
        return Amounts(**{name: float((column * it_j).sum()) for name, column in self.columns().items()})


def _job_lines(
    parts: HeldParts, buckets: Buckets, scale: Floats, known: Floats, shares: _Shares
) -> dict[tuple[str, str], Amounts]:
    """Return the amounts of each job and user."""
    keys = sorted({(one.job, one.user_hash) for one in parts.held})
    number_of = {key: number for number, key in enumerate(keys)}
    of_interval = np.array([number_of[one.job, one.user_hash] for one in parts.held], np.int64)
    of_part = of_interval[parts.interval]
    inside_s, unmetered_s = (
        buckets.integral(each, parts.start_s, parts.end_s) for each in (np.ones(buckets.count), 1.0 - known)
    )
    sums = {
        "gpu_s": parts.gpus * inside_s,
        "board_j": parts.board_w * inside_s,
        "unmetered_j": parts.it_w * unmetered_s,
    }
    for name, column in shares.columns().items():
        sums[name] = parts.it_w * buckets.integral(column * scale, parts.start_s, parts.end_s)
    totals = {name: np.bincount(of_part, each, len(keys)) for name, each in sums.items()}
    return {
        key: Amounts(**{name: float(column[number]) for name, column in totals.items()})
        for number, key in enumerate(keys)
    }
