"""Straight lines below the true curves of a hall: losses of the power chain and power of cooling plants, in integers.

A line is `value_w + slope / 2**40 * (load_w - at_w)` with whole numbers. It never lies above the curve, for any load
from 0 to the highest that the checker accepts:

* Convex curves: the secant over a short step from `at_w`, which lies below the curve except within the step, less the
  most by which it can lie above it there (the second difference) and 1 W for rounding.
* Other curves need only rise with the load: between two points of a grid the curve is at least its value at the first,
  and the line is an edge of the lower convex hull of these values. Such a plant makes the bound looser, never false.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from powerhall.physics.cooling import medium_load
from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.weather import Weather
from powerhall.site.topology import Hall, Losses

__all__ = ["ONE", "Line", "loss_line", "plants_line"]

ONE = 1 << 40
"""Slopes are whole numbers over this."""
_STEPS = 1 << 16
"""Parts of the range that the step of a secant is long."""
_GRID = 256


@dataclass(frozen=True, slots=True)
class Line:
    """A line below a curve."""

    at_w: int
    value_w: int
    slope: int

    def over_one(self, load: int) -> int:
        """Return the value at a load of `load / ONE` W, over ONE and rounded down."""
        return self.value_w * ONE + self.slope * (load - self.at_w * ONE) // ONE


def loss_line(losses: Losses, at_w: int) -> Line:
    """Return the tangent of the losses at an IT power of `at_w`."""
    slope = losses.linear + 2.0 * losses.quadratic_per_w * at_w
    return Line(at_w, math.floor(losses.power_w(at_w)) - 1, math.floor(slope * ONE))


def plants_line(hall: Hall, medium: str, air: Weather, at_w: int, most_w: float) -> Line:
    """Return a line below the power of the plants of a medium, near a heat of `at_w`; the heat is at most `most_w`."""
    capacity_w, none_w = medium_load(hall, medium, 0.0, air)
    if capacity_w <= 0:
        return Line(0, math.floor(none_w) - 1, 0)

    def power_w(heat_w: float) -> float:
        return medium_load(hall, medium, heat_w, air)[1]

    if all(kind_of(plant).convex for plant in hall.plants if plant.serves == medium):
        return _secant(power_w, at_w, most_w)
    return _hull_edge(power_w, at_w, most_w)


def _secant(curve: Callable[[float], float], at_w: int, most_w: float) -> Line:
    step_w = max(1.0, most_w / _STEPS)
    first, middle, last = (curve(at_w + number * step_w) for number in range(3))
    above_w = max(0.0, last - 2 * middle + first)
    slope = max(0, math.floor((middle - first) / step_w * ONE))
    return Line(at_w, math.floor(first - above_w) - 1, slope)


def _hull_edge(curve: Callable[[float], float], at_w: int, most_w: float) -> Line:
    grid = [math.ceil(most_w + 1) * number // _GRID for number in range(_GRID + 1)]
    values = [curve(float(load_w)) for load_w in grid]
    hull: list[tuple[int, float]] = [(0, values[0])]
    for point in zip(grid[1:], values, strict=False):
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    left, right = next((edge for edge in pairwise(hull) if at_w <= edge[1][0]), (hull[-2], hull[-1]))
    return Line(left[0], math.floor(left[1]) - 1, max(0, math.floor(_slope(left, right) * ONE)))


def _slope(left: tuple[int, float], right: tuple[int, float]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])
