"""The budgets that leases are granted against: every limited zone, every cooling plant and the meter, in node watts.

A lease may be in force at any moment until it runs out, so each budget is the lowest over that time. Losses and cooling
power are convex in the load; the meter's budget therefore counts a node's watts by the steepest chord of its hall,
which lies above the true curve wherever the load may lie (see `powerhall_optimizer.physics.linearize`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import hall_load, media
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Plan
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Rack, Site
from powerhall_optimizer.leases.ledger import Budget
from powerhall_optimizer.physics.linearize import it_for_heat_w, loss_slope
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.storage.model import plant_slopes

__all__ = ["lease_budgets"]

Floats = npt.NDArray[np.float64]


def lease_budgets(plan: Plan, now_s: float, until_s: float) -> list[Budget]:
    """Return the budgets that hold from `now_s` to `until_s`, in W; the plan's horizon must reach that far.

    Planned discharge of storage in every slot of that time is added, planned charging is subtracted.
    """
    snapshot = plan.snapshot
    conditions = SiteConditions(snapshot)
    first = max(0, int(now_s - snapshot.start_s) // snapshot.slot_s)
    last = min(snapshot.slots, max(first + 1, -(-int(until_s - snapshot.start_s) // snapshot.slot_s)))
    weather = sorted(set(conditions.weather[first:last]), key=lambda moment: (moment.dry_bulb_c, moment.wet_bulb_c))
    found = []
    delivered, cooled = _delivered(plan, first, last), _cooled(plan, first, last)
    for zone, values in conditions.budgets_w.items():
        lowest = float((values[first:last] + delivered.get(zone, 0.0)).min())
        racks = conditions.index.racks_under(zone)
        found.append(
            _meter(snapshot.site, lowest - _charging_w(snapshot.site, cooled, weather), weather)
            if zone == snapshot.site.name
            else _plain(zone, lowest, racks)
        )
    for hall in snapshot.site.halls:
        stored = {medium: cooled.get((hall.zone, medium), 0.0) for medium in media(hall)}
        found += [_heat(snapshot.site, hall, medium, weather, stored_w) for medium, stored_w in stored.items()]
    return found


def _delivered(plan: Plan, first: int, last: int) -> dict[str, Floats]:
    """Return the power of batteries under the site and every feed, per slot."""
    site, found = plan.snapshot.site, dict[str, Floats]()
    powers = {entry.name: np.array(entry.power_w[first:last], float) for entry in plan.storages}
    for storage in site.storages:
        if storage.kind == "battery" and storage.name in powers:
            for zone in (site.name, *SiteIndex.of(site).feeds_above(storage.zone)):
                found[zone] = found.get(zone, 0.0) + powers[storage.name]
    return found


def _cooled(plan: Plan, first: int, last: int) -> dict[tuple[str, str], float]:
    """Return the least heat in W that storage takes off the plants of a hall and medium; negative: it adds heat."""
    found: dict[tuple[str, str], Floats] = {}
    powers = {entry.name: np.array(entry.power_w[first:last], float) for entry in plan.storages}
    for storage in plan.snapshot.site.storages:
        if storage.kind != "battery" and storage.name in powers:
            key = storage.zone, storage.medium
            found[key] = found.get(key, 0.0) + powers[storage.name]
    return {key: float(values.min()) for key, values in found.items()}


def _charging_w(site: Site, cooled: Mapping[tuple[str, str], float], weather: Sequence[Weather]) -> float:
    """Return the most power at the meter that charging cooling storage draws, by the steepest slope of the plants."""
    total = 0.0
    for (hall, medium), least_w in cooled.items():
        slopes = plant_slopes(SiteIndex.of(site).halls[hall], medium, weather)
        total += max(0.0, -least_w) * max(steep for _, _, steep in slopes)
    return total


def _nodes(racks: Sequence[Rack]) -> tuple[str, ...]:
    return tuple(node for rack in racks for node in rack.nodes)


def _plain(zone: str, budget_w: float, racks: Sequence[Rack]) -> Budget:
    return Budget(zone, budget_w, _nodes(racks))


def _most_w(site: Site, hall: Hall) -> float:
    return sum(site.node_types[rack.node_type].max_power_w * len(rack.nodes) for rack in hall.racks())


def _liquid(site: Site, rack: Rack) -> float:
    return site.node_types[rack.node_type].liquid_fraction


def _meter(site: Site, budget_w: float, weather: Sequence[Weather]) -> Budget:
    """Count each hall as its power at no load plus its steepest chord, over the weathers of the lease."""
    nodes: list[str] = []
    weights: list[float] = []
    for hall in site.halls:
        most_w = _most_w(site, hall)
        none_w, slope = 0.0, 1.0
        shares = {_liquid(site, rack) for rack in hall.racks()}
        for moment in weather:
            empty_w = hall_load(hall, 0.0, 0.0, moment).facility_power_w
            none_w = max(none_w, empty_w)
            for share in shares:
                full_w = hall_load(hall, share * most_w, (1 - share) * most_w, moment).facility_power_w
                slope = max(slope, (full_w - empty_w) / most_w)
        budget_w -= none_w
        names = _nodes(tuple(hall.racks()))
        nodes += names
        weights += [slope] * len(names)
    return Budget(site.name, budget_w, tuple(nodes), tuple(weights))


def _heat(site: Site, hall: Hall, medium: str, weather: Sequence[Weather], stored_w: float) -> Budget:
    """Convert the lowest cooling capacity of a hall, with the heat that storage takes, into node watts."""
    capacity_w = min(hall_load(hall, 0.0, 0.0, moment).capacity_w[medium] for moment in weather) + stored_w
    zone = f"{hall.zone}/cooling/{medium}"
    racks = tuple(hall.racks())
    if medium == "all":
        return Budget(zone, it_for_heat_w(hall.losses, capacity_w), _nodes(racks))
    shares = [_liquid(site, rack) if medium == "liquid" else 1.0 - _liquid(site, rack) for rack in racks]
    budget_w = capacity_w
    if medium == "air":  # the losses of the whole hall heat its air
        budget_w -= hall.losses.fixed_w
        extra = loss_slope(hall.losses, 0.0, _most_w(site, hall))
        shares = [share + extra for share in shares]
    weights = [share for rack, share in zip(racks, shares, strict=True) for _ in rack.nodes]
    return Budget(zone, budget_w, _nodes(racks), tuple(weights))
