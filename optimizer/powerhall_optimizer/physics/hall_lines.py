"""Loads and capacities of halls, and the halls under a feed."""

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import hall_load, plant_capacity_w
from powerhall.site.topology import Feed, Hall
from powerhall_optimizer.physics.site_conditions import SiteConditions

__all__ = ["feed_halls", "idle_power_w", "medium_capacity_w", "most_added_w"]

Floats = npt.NDArray[np.float64]


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


def idle_power_w(conditions: SiteConditions, hall: Hall) -> Floats:
    """Return a hall's power at the meter per slot in W when no job runs."""
    base, weather = conditions.hall_base(hall), conditions.weather
    known = {air: hall_load(hall, base.liquid_w, base.air_w, air).facility_power_w for air in dict.fromkeys(weather)}
    return np.array([known[air] for air in weather])


def medium_capacity_w(conditions: SiteConditions, hall: Hall, medium: str) -> Floats:
    """Return the heat in W per slot that the plants of a medium take."""
    plants = [plant for plant in hall.plants if plant.serves == medium]
    at = {air: sum(plant_capacity_w(plant, air) for plant in plants) for air in dict.fromkeys(conditions.weather)}
    return np.array([at[air] for air in conditions.weather], float)
