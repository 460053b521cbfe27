"""Demand charges in a plan's value and in its proven bound.

With a charge of `c` per W on the peak `z` above the month's peak so far `p`, a plan's power at the meter is at most `z`
in every slot that counts. Prices of these limits, `q` per W and slot with a sum of at most `c`, are a part of the
prices of the limit at the meter: they cost `q * p` in place of `q * limit`, since no `z` above `p` pays (weak duality:
`q * z - c * (z - p)` is highest at `p`). So the bound falls by `q * (limit - p)`; it is the lower the more of `c` goes
to the slots in which the limit is furthest above `p`.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from powerhall.plan.plan import Plan, Snapshot

__all__ = ["demand_cost", "saved_by_peaks"]


def demand_cost(plan: Plan, unit: float) -> int:
    """Return what a plan pays for raising peaks, in whole units of value, rounded up."""
    s = plan.snapshot
    planned = next((zone.planned_w for zone in plan.zones if zone.zone == s.site.name), ())
    usd = 0.0
    for term in s.demand:
        most_w = max((planned[slot] for slot in term.slots if slot < len(planned)), default=0)
        usd += term.usd_per_kw / 1000 * max(0.0, most_w - term.peak_w)
    return math.ceil(usd / unit)


def saved_by_peaks(s: Snapshot, prices: Sequence[int], limit_w: Sequence[int], scale: int, unit: float) -> int:
    """Return by how much the bound is lower, times the scale, rounded down; `prices` are those of a W at the meter."""
    left = list(prices)
    saved = 0
    for term in s.demand:
        most = math.floor(Fraction(term.usd_per_kw) / 1000 / Fraction(unit) * scale)
        peak_w = math.ceil(term.peak_w) + 1
        for slot in sorted(set(term.slots), key=lambda at: peak_w - limit_w[at]):
            part = min(left[slot], most)
            if part <= 0 or limit_w[slot] <= peak_w:
                continue
            left[slot] -= part
            most -= part
            saved += part * (limit_w[slot] - peak_w)
    return saved
