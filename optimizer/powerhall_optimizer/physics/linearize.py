"""Safe linear bounds: a hall's heat and facility power are convex in its load and bounded from above.

A convex function lies below the chord over any interval, and below the plane through the corners of a simplex. A plan
within the linear bound is within the true curve.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import hall_load
from powerhall.physics.weather import Weather
from powerhall.site.topology import Hall, Losses
from powerhall_optimizer.physics.site_conditions import Heat

__all__ = ["FacilityPowerBound", "facility_power_bound", "it_for_heat_w", "loss_slope", "site_capacity", "site_slope"]

Floats = npt.NDArray[np.float64]


def it_for_heat_w(losses: Losses, heat_w: float) -> float:
    """Return the highest IT power in W at which IT power and losses together stay within `heat_w`; exact."""
    left = heat_w - losses.fixed_w
    b, q = 1.0 + losses.linear, losses.quadratic_per_w
    if left <= 0:
        return 0.0
    return left / b if q == 0 else 2 * left / (b + math.sqrt(b * b + 4 * q * left))


def loss_slope(losses: Losses, idle_w: float, high_w: float) -> float:
    """Return the slope of the chord of the losses from `idle_w` to `high_w` of IT power."""
    return losses.linear + losses.quadratic_per_w * (idle_w + high_w)


def _at(hall: Hall, heat: Heat, weather: Weather) -> float:
    return hall_load(hall, heat.liquid_w, heat.air_w, weather).facility_power_w


@dataclass(frozen=True, slots=True)
class FacilityPowerBound:
    """A hall at the meter in W per slot: power when idle, and the addition by `most_it_w` of IT on one node type."""

    idle_w: Floats
    added_w: dict[str, Floats]
    most_it_w: float

    def slope(self, kind: str) -> float:
        """W at the meter per W of IT, over all slots."""
        return float(np.mean(self.added_w[kind])) / self.most_it_w if self.most_it_w > 0 else 1.0


def facility_power_bound(
    hall: Hall, base: Heat, liquid: Mapping[str, float], most_it_w: float, weather: Sequence[Weather]
) -> FacilityPowerBound:
    """Return the corners of a hall's facility power; `liquid` is the liquid fraction of each of its node types."""
    corners = {
        kind: Heat(base.liquid_w + share * most_it_w, base.air_w + (1 - share) * most_it_w)
        for kind, share in liquid.items()
    }
    known: dict[Weather, tuple[float, dict[str, float]]] = {}
    for moment in weather:
        if moment not in known:
            known[moment] = _at(hall, base, moment), {k: _at(hall, heat, moment) for k, heat in corners.items()}
    low = np.array([known[moment][0] for moment in weather])
    return FacilityPowerBound(
        low, {kind: np.array([known[moment][1][kind] for moment in weather]) - low for kind in liquid}, most_it_w
    )


def site_capacity(halls: Sequence[FacilityPowerBound], free_w: Floats) -> Floats:
    """Return how much weighted IT power (sum of slope times IT power) is safe per slot within `free_w` at the meter.

    A hall's rise stays below the plane through its corners, so the dearest way to spread a weighted load over the halls
    is a fractional knapsack by rise per weight; the capacity is where even that distribution meets the budget.
    """
    result = np.zeros_like(free_w)
    for slot, free in enumerate(free_w):
        items = sorted((_dearest(hall, slot) for hall in halls if hall.most_it_w > 0), reverse=True)
        left, room = float(free), 0.0
        for dearness, weight in items:
            if left <= dearness * weight:
                room += max(0.0, left) / max(dearness, 1e-12)
                left = 0.0
                break
            left -= dearness * weight
            room += weight
        result[slot] = room + left
    return result


def site_slope(halls: Sequence[FacilityPowerBound], free_w: Floats) -> Floats:
    """Return how much weighted IT power one more W at the meter carries in each slot.

    The capacity is convex in the free power, so that its tangent is safe for more power and for less.
    """
    result = np.ones_like(free_w)
    for slot, free in enumerate(free_w):
        left = float(free)
        for dearness, weight in sorted((_dearest(hall, slot) for hall in halls if hall.most_it_w > 0), reverse=True):
            result[slot] = max(1.0, 1.0 / max(dearness, 1e-12))  # beyond the last hall only less power matters
            if left < dearness * weight:
                result[slot] = 1.0 / max(dearness, 1e-12)
                break
            left -= dearness * weight
    return result


def _dearest(hall: FacilityPowerBound, slot: int) -> tuple[float, float]:
    """Return (rise per weight of its dearest node type, weight at most)."""
    weights = {kind: hall.slope(kind) * hall.most_it_w for kind in hall.added_w}
    return max(float(hall.added_w[kind][slot]) / weights[kind] for kind in weights), max(weights.values())
