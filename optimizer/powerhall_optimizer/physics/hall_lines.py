"""Linear bounds of each hall's facility power, and the halls under a feed."""

import numpy as np

from powerhall.site.topology import Feed, Hall
from powerhall_optimizer.physics.linearize import FacilityPowerBound, facility_power_bound
from powerhall_optimizer.physics.site_conditions import SiteConditions

__all__ = ["facility_power_bounds", "feed_halls", "most_added_w"]


def feed_halls(conditions: SiteConditions, feed: Feed) -> tuple[Hall, ...]:
    """Return the halls with all of their racks under the feed; placement holds feeds that carry parts of halls."""
    under = {rack.zone for rack in conditions.index.racks_under(feed.zone)}
    return tuple(hall for hall in conditions.site.halls if all(rack.zone in under for rack in hall.racks()))


def most_added_w(conditions: SiteConditions, hall: Hall) -> float:
    """Return the most IT power that jobs can add in a hall."""
    most = sum(conditions.most_added_w(rack) for rack in hall.racks())
    if hall.zone in conditions.budgets_w:
        free_w = float(np.max(conditions.budgets_w[hall.zone])) - conditions.hall_base(hall).it_w
        most = min(most, max(0.0, free_w))
    return most


def facility_power_bounds(conditions: SiteConditions) -> list[FacilityPowerBound]:
    """Return the line that bounds each hall's facility power from above."""
    found: list[FacilityPowerBound] = []
    for hall in conditions.site.halls:
        kinds = dict.fromkeys(rack.node_type for rack in hall.racks())
        liquid = {kind: conditions.site.node_types[kind].liquid_fraction for kind in kinds}
        found.append(
            facility_power_bound(
                hall, conditions.hall_base(hall), liquid, most_added_w(conditions, hall), conditions.weather
            )
        )
    return found
