"""Place a schedule that holds every hall's limits: onto nodes, within ramp limits, improved while time is left."""

import math
import time
from collections.abc import Callable, Mapping

from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.placer import PlacedSchedule, Placer
from powerhall_optimizer.placement.ramps import keep_ramp_limits
from powerhall_optimizer.placement.ruin_recreate import ruin_and_recreate
from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem

__all__ = ["place"]

_LEAST_S = 5.0
"""Time for finding other options for jobs without nodes; the rest wait."""
_FILL_S = 1.0
"""Time for starting waiting jobs in free capacity, before and after the search."""


def place(
    conditions_of: Mapping[str, SiteConditions],
    built: BuiltProblem,
    schedule: Schedule,
    *,
    late: Callable[[], bool] = lambda: True,
    settings: RoundSettings | None = None,
    fill: bool = False,
) -> PlacedSchedule:
    """Place a schedule that holds the problem's limits; the result holds those of rows, racks and feeds as well.

    `fill` starts waiting jobs in free capacity and improves the placement until `late()`.
    """
    placer = Placer(conditions_of, built, schedule, time.monotonic() + _LEAST_S)
    placer.run()
    keep_ramp_limits(placer)
    if fill:
        placer.fill(time.monotonic() + _FILL_S)
        placer.deadline_s = math.inf
        ruin_and_recreate(placer, schedule, settings or RoundSettings(), late)
        placer.fill(time.monotonic() + _FILL_S)
        placer.deadline_s = time.monotonic() + _LEAST_S
        keep_ramp_limits(placer)
    return placer.placed()
