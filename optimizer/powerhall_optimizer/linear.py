"""Straight lines that are safe: a hall's heat and facility power, convex in its load, bounded from above.

A convex function lies below the chord over any interval, and below the plane through the corners of a simplex. So a
plan that holds the straight line holds the true curve.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from powerhall.cooling import Weather, hall_load
from powerhall.topology import Hall, Losses
from powerhall_optimizer.budgets import Heat

__all__ = ["it_for_heat_w", "loss_slope", "site_line"]

Floats = npt.NDArray[np.float64]


def it_for_heat_w(losses: Losses, heat_w: float) -> float:
    """Return the highest IT power in W at which IT power and losses together stay within `heat_w`; exact."""
    left = heat_w - losses.fixed_w
    b, q = 1.0 + losses.linear, losses.quadratic_per_w
    if left <= 0:
        return 0.0
    return left / b if q == 0 else 2 * left / (b + math.sqrt(b * b + 4 * q * left))


def loss_slope(losses: Losses, low_w: float, high_w: float) -> float:
    """Return the slope of the chord of the losses from `low_w` to `high_w` of IT power."""
    return losses.linear + losses.quadratic_per_w * (low_w + high_w)


def _at(hall: Hall, heat: Heat, weather: Weather) -> float:
    return hall_load(hall, heat.liquid_w, heat.air_w, weather).facility_power_w


def site_line(
    hall: Hall, base: Heat, liquid: Mapping[str, float], most_w: float, weather: Sequence[Weather]
) -> tuple[Floats, dict[str, float]]:
    """Return (power in W at the meter of the idle hall per slot, W at the meter per W of IT by node type).

    `liquid` is the liquid fraction of each node type, `most_w` the most IT power that jobs can add. The slopes hold for
    all slots; where the weather is worse than theirs the whole line is raised, so that it never falls below the curve.
    """
    corners = {
        kind: Heat(base.liquid_w + share * most_w, base.air_w + (1 - share) * most_w) for kind, share in liquid.items()
    }
    known: dict[Weather, tuple[float, dict[str, float]]] = {}
    for moment in weather:
        if moment not in known:
            known[moment] = _at(hall, base, moment), {k: _at(hall, heat, moment) for k, heat in corners.items()}
    low = np.array([known[moment][0] for moment in weather])
    high = {kind: np.array([known[moment][1][kind] for moment in weather]) for kind in liquid}
    if most_w <= 0:
        return low, dict.fromkeys(liquid, 1.0)
    slope = {kind: float(np.mean(high[kind] - low)) / most_w for kind in liquid}
    line = low.copy()
    for kind in liquid:
        line = np.maximum(line, high[kind] - slope[kind] * most_w)
    return line, slope
