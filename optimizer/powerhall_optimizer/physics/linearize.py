"""IT power at which a hall gives off a given heat: its losses are quadratic, and inverted exactly."""

import math

from powerhall.site.topology import Losses

__all__ = ["it_for_air_heat_w", "it_for_heat_w", "loss_slope"]


def it_for_heat_w(losses: Losses, heat_w: float) -> float:
    """Return the highest IT power in W at which IT power and losses together stay within `heat_w`; exact."""
    left = heat_w - losses.fixed_w
    b, q = 1.0 + losses.linear, losses.quadratic_per_w
    if left <= 0:
        return 0.0
    return left / b if q == 0 else 2 * left / (b + math.sqrt(b * b + 4 * q * left))


def it_for_air_heat_w(losses: Losses, share: float, idle_w: float, room_w: float) -> float:
    """Return the IT power in W above `idle_w` whose part `share` and additional losses give off `room_w` of heat."""
    b, q = share + losses.linear + 2.0 * losses.quadratic_per_w * idle_w, losses.quadratic_per_w
    if room_w <= 0:
        return 0.0
    if b == 0 and q == 0:
        return math.inf
    return 2 * room_w / (b + math.sqrt(b * b + 4 * q * room_w))


def loss_slope(losses: Losses, idle_w: float, high_w: float) -> float:
    """Return the slope of the chord of the losses from `idle_w` to `high_w` of IT power."""
    return losses.linear + losses.quadratic_per_w * (idle_w + high_w)
