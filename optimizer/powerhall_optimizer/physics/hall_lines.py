"""The straight line that bounds each hall's facility power from above, and the halls under a feed."""

import numpy as np

from powerhall.site.topology import Feed, Hall
from powerhall_optimizer.physics.limits import Ground
from powerhall_optimizer.physics.linearize import Rise, rise

__all__ = ["feed_halls", "most_added_w", "site_rises"]


def feed_halls(ground: Ground, feed: Feed) -> tuple[Hall, ...]:
    """Return the halls that hang under the feed with all of their racks; parts of halls are placement's business."""
    under = {rack.zone for rack in ground.index.racks_under(feed.zone)}
    return tuple(hall for hall in ground.site.halls if all(rack.zone in under for rack in hall.racks()))


def most_added_w(ground: Ground, hall: Hall) -> float:
    """Return the most IT power that jobs can add in a hall."""
    most = sum(ground.most_added_w(rack) for rack in hall.racks())
    if hall.zone in ground.budgets_w:
        free_w = float(np.max(ground.budgets_w[hall.zone])) - ground.hall_base(hall).it_w
        most = min(most, max(0.0, free_w))
    return most


def site_rises(ground: Ground) -> list[Rise]:
    """Return the line that bounds each hall's facility power from above."""
    found: list[Rise] = []
    for hall in ground.site.halls:
        kinds = dict.fromkeys(rack.node_type for rack in hall.racks())
        liquid = {kind: ground.site.node_types[kind].liquid_fraction for kind in kinds}
        found.append(rise(hall, ground.hall_base(hall), liquid, most_added_w(ground, hall), ground.weather))
    return found
