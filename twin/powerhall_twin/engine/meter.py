"""Kernels: from one event to the next, with the meters of the building in between and the check of every limit.

Thermal inertia of a hall is first order: `C dT/dt = heat - removed`. The plants remove heat up to their capacity and
reduce an excess temperature with a time constant. C is the water of the loop: 10 l per kW of plant (41.8 J/K per W,
418 s for 10 K without any cooling).
"""

from typing import NamedTuple

import numpy as np

from powerhall_twin.engine.columns import CAPACITY, HALL_PLANTS, SERVES
from powerhall_twin.engine.hall_power import hall_facility, hall_heat, medium_capacity
from powerhall_twin.engine.jit import inner_kernel, kernel
from powerhall_twin.engine.job_arrays import World, end_due, next_end_s
from powerhall_twin.engine.plant_curves import PlantCurves
from powerhall_twin.engine.site_arrays import Floats, Layout

__all__ = ["MEDIA", "Gauges", "advance", "facility_w"]

MEDIA = ("all", "liquid", "air")
_TOLERANCE_W = 1.0
_PULL_BACK_S = 600.0


class Gauges(NamedTuple):
    """Per limit (site, zones, then three media per hall): what was seen of it; and the warmth of the halls."""

    worst: Floats  # least headroom as a share of the limit
    worst_at: Floats
    over_s: Floats
    first_over: Floats  # NaN where never over
    most_w: Floats  # value and limit where it was over by the most
    most_limit_w: Floats
    excess_k: Floats  # [H] above the set point
    excess_most_k: Floats  # [H]
    heat_j: Floats  # [3 H] heat to the plants of each medium since the last sample
    water_j_per_k: Floats  # [H] heat capacity of a hall's cooling water
    delivered_w: Floats  # what batteries deliver: to the site, then to each zone
    hall_w: Floats  # [H]
    totals: Floats  # W at the meter, IT W, 1 where any limit is exceeded


@inner_kernel
def _check(gauges: Gauges, at: int, value_w: float, limit_w: float, now_s: float, dt_s: float) -> None:
    headroom = (limit_w - value_w) / limit_w if limit_w > 0.0 else -1.0
    if headroom < gauges.worst[at]:
        gauges.worst[at], gauges.worst_at[at] = headroom, now_s
    if value_w > limit_w + _TOLERANCE_W:
        gauges.over_s[at] += dt_s
        gauges.totals[2] = 1.0
        if np.isnan(gauges.first_over[at]):
            gauges.first_over[at] = now_s
        if value_w - limit_w > gauges.most_w[at] - gauges.most_limit_w[at]:
            gauges.most_w[at], gauges.most_limit_w[at] = value_w, limit_w


@inner_kernel
def _warm(
    layout: Layout, plants: PlantCurves, gauges: Gauges, hall: int, heat_w: float, over_w: float, dt_s: float
) -> None:
    capacity_w, water_j_per_k = 0.0, gauges.water_j_per_k[hall]
    for p in range(layout.halls[HALL_PLANTS, hall], layout.halls[HALL_PLANTS, hall + 1]):
        capacity_w += plants.numbers[p, CAPACITY]
    if water_j_per_k <= 0.0:
        return
    spare_w = max(0.0, capacity_w - heat_w) if over_w <= 0.0 else 0.0
    pull_w = min(spare_w, water_j_per_k * gauges.excess_k[hall] / max(_PULL_BACK_S, dt_s))
    gauges.excess_k[hall] = max(0.0, gauges.excess_k[hall] + (over_w - pull_w) * dt_s / water_j_per_k)
    gauges.excess_most_k[hall] = max(gauges.excess_most_k[hall], gauges.excess_k[hall])


@inner_kernel
def _read_meters(w: World, gauges: Gauges, limits_w: Floats, now_s: float, dt_s: float, step_s: float) -> None:
    """Read all meters for `dt_s` seconds from now; halls warm and cool in steps of at most `step_s`."""
    layout, draw, plants = w.layout, w.draw, w.plants
    halls, zones = layout.halls.shape[1] - 1, len(draw.zone_nw)
    facility_w, all_it_w = 0.0, 0.0
    gauges.totals[2] = 0.0
    for hall in range(halls):
        it_w, liquid_w, air_w = hall_heat(layout, draw.pool_nw, hall, -1, 0)
        loss_w = layout.losses[hall, 0] + (layout.losses[hall, 1] + layout.losses[hall, 2] * it_w) * it_w
        facility_w += gauges.hall_w[hall]
        all_it_w += it_w
        has_all, heat, over_w = False, 0.0, 0.0
        for p in range(layout.halls[HALL_PLANTS, hall], layout.halls[HALL_PLANTS, hall + 1]):
            has_all = has_all or plants.numbers[p, SERVES] == 0
        if layout.halls[HALL_PLANTS, hall] < layout.halls[HALL_PLANTS, hall + 1]:
            for medium in range(3):
                if has_all == (medium == 0):
                    heat_w = it_w + loss_w if medium == 0 else (liquid_w if medium == 1 else air_w + loss_w)
                    heat_w -= plants.relief[3 * hall + medium]
                    capacity_w, _ = medium_capacity(layout, plants, hall, medium)
                    gauges.heat_j[3 * hall + medium] += max(0.0, heat_w) * dt_s
                    _check(gauges, 1 + zones + 3 * hall + medium, heat_w, capacity_w, now_s, dt_s)
                    heat += heat_w
                    over_w += max(0.0, heat_w - capacity_w)
        done_s = 0.0
        while done_s < dt_s and (over_w > 0.0 or gauges.excess_k[hall] > 0.0):
            part_s = min(step_s, dt_s - done_s)
            _warm(layout, plants, gauges, hall, heat, over_w, part_s)
            done_s += part_s
    for z in range(zones):
        if limits_w[1 + z] < np.inf:
            _check(gauges, 1 + z, draw.zone_nw[z] / 1e9 - gauges.delivered_w[1 + z], limits_w[1 + z], now_s, dt_s)
    facility_w -= gauges.delivered_w[0]
    if limits_w[0] < np.inf:
        _check(gauges, 0, facility_w, limits_w[0], now_s, dt_s)
    gauges.totals[0], gauges.totals[1] = facility_w, all_it_w


@inner_kernel
def _has_excess_heat(w: World, gauges: Gauges) -> bool:
    """Compute every hall's power; True where one has more heat than its plants take, or is still warm from that."""
    hot = False
    for hall in range(len(gauges.hall_w)):
        gauges.hall_w[hall], cooled = hall_facility(w.layout, w.plants, w.draw.pool_nw, hall, -1, 0)
        hot = hot or not cooled or gauges.excess_k[hall] > 0.0
    return hot


@kernel
def facility_w(w: World) -> float:
    """Return the power that the site draws now in W, without what batteries deliver."""
    total_w = 0.0
    for hall in range(w.layout.halls.shape[1] - 1):
        hall_w, _ = hall_facility(w.layout, w.plants, w.draw.pool_nw, hall, -1, 0)
        total_w += hall_w
    return total_w


@kernel
def advance(
    w: World,
    gauges: Gauges,
    limits_w: Floats,
    now_s: float,
    next_submit_s: float,
    until_s: float,
    least_s: float,
    step_s: float,
    tolerance_s: float,
) -> float:
    """Go to the next event: read the meters until then, and end the runs that are done; return its time.

    It is the next end or submission, at least `least_s` from now, or `until_s` where that comes first. Runs with
    at most `tolerance_s` of work left are done. While a hall has too much heat no step is longer than `step_s`.
    One kernel: a call from Python takes longer than the work of most.
    """
    event_s = min(until_s, max(now_s + least_s, min(next_end_s(w), next_submit_s)))
    if _has_excess_heat(w, gauges):
        event_s = min(event_s, now_s + step_s)
    _read_meters(w, gauges, limits_w, now_s, event_s - now_s, step_s)
    end_due(w, event_s, tolerance_s)
    return event_s
