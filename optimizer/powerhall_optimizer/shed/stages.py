"""Steps of a shed: one, or several within the grid's ramp as far as the deadline allows."""

import math

__all__ = ["stages"]

_DEADLINE_SHARE = 0.5
"""The last step is sent at half of the time allowed: carriers, cappers and GPUs need the rest."""
_STEP_S = 1.0
_MOST_STEPS = 30


def stages(from_w: float, to_w: float, ramp_w_per_s: float | None, within_s: float | None) -> list[tuple[float, float]]:
    """Return (seconds from now, power to reach) per step, the last at the target; without a ramp that is one step.

    No step falls faster than the ramp, unless the deadline demands it: then all steps are equally steep.
    """
    drop_w = from_w - to_w
    if ramp_w_per_s is None or drop_w <= 0:
        return [(0.0, to_w)]
    total_s = drop_w / ramp_w_per_s
    if within_s is not None:
        total_s = min(total_s, _DEADLINE_SHARE * within_s)
    count = max(1, min(_MOST_STEPS, math.ceil(total_s / _STEP_S)))
    each_s = total_s / count
    return [(each_s * number, from_w - drop_w * (number + 1) / count) for number in range(count)]
