"""The budgets that leases are granted against: every limited zone, every cooling plant and the meter, in node watts.

A lease may be in force at any moment until it runs out, so each budget has its known falls until then. Losses and
cooling power are convex in the load, or replaced by a line above them; the meter's budget counts a node's watts by the
steepest chord of its hall, which lies above the true curve wherever the load may lie.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import hall_load, has_convex_plants, media, medium_load
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Rack, Site
from powerhall_optimizer.leases.budget import Budget, Fall
from powerhall_optimizer.physics.linearize import it_for_heat_w, loss_slope
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.storage.model import plant_slopes

__all__ = ["horizon_end_s", "known_falls_s", "lease_budgets"]

Floats = npt.NDArray[np.float64]
_PARTS = 64


@dataclass(frozen=True, slots=True)
class _Span:
    """The slots of the leases: the first one and the one after the last, the weather of each."""

    plan: Plan
    first: int
    last: int
    weather: tuple[Weather, ...]

    @property
    def moments(self) -> list[Weather]:
        return sorted(set(self.weather), key=lambda moment: (moment.dry_bulb_c, moment.wet_bulb_c))

    def cut(self, values: Sequence[float] | Floats) -> Floats:
        return np.array(values[self.first : self.last], float)

    def budget(self, zone: str, values: Floats, nodes: tuple[str, ...], weights: tuple[float, ...] = ()) -> Budget:
        """Return the budget with the slots in which it falls; a rise is left out."""
        s, lowest, falls = self.plan.snapshot, float(values[0]), []
        for number, value in enumerate(values.tolist()):
            if value < lowest:
                lowest = value
                falls.append(Fall(float(s.start_s + (self.first + number) * s.slot_s), value))
        return Budget(zone, float(values[0]), nodes, weights, tuple(falls))


def horizon_end_s(plan: Plan) -> float:
    """Return the end of the last slot: the plan knows no budget beyond it."""
    s = plan.snapshot
    return float(s.start_s + s.slots * s.slot_s)


def known_falls_s(plan: Plan, now_s: float, until_s: float) -> list[float]:
    """Return the times at which any budget falls, and the plan's end, beyond which none is known."""
    end_s = horizon_end_s(plan)
    budgets = lease_budgets(plan, now_s, min(until_s, end_s)) if now_s < end_s else []
    return sorted({fall.time_s for budget in budgets for fall in budget.falls} | {end_s})


def lease_budgets(plan: Plan, now_s: float, until_s: float) -> list[Budget]:
    """Return the budgets from `now_s` to `until_s`, in W; an end beyond the plan's horizon raises Rejected.

    Planned discharge of storage is added slot by slot, planned charging is subtracted.
    """
    snapshot = plan.snapshot
    if not snapshot.start_s <= now_s < until_s <= horizon_end_s(plan):
        raise Rejected.field("lease", "until_s", until_s, f"must lie before the plan's end, {horizon_end_s(plan):.0f}")
    conditions = SiteConditions(snapshot)
    first = int(now_s - snapshot.start_s) // snapshot.slot_s
    last = max(first + 1, -(-int(np.ceil(until_s - snapshot.start_s)) // snapshot.slot_s))
    span = _Span(plan, first, last, conditions.weather[first:last])
    found = []
    delivered, cooled = _delivered(span), _cooled(span)
    for zone, values in conditions.budgets_w.items():
        left = span.cut(values) + delivered.get(zone, 0.0)
        if zone == snapshot.site.name:
            found.append(_meter(span, left - _charging_w(span, cooled)))
        else:
            found.append(span.budget(zone, left, _nodes(conditions.index.racks_under(zone))))
    for hall in snapshot.site.halls:
        stored = {medium: cooled.get((hall.zone, medium), np.zeros(last - first)) for medium in media(hall)}
        found += [_heat(span, hall, medium, stored_w) for medium, stored_w in stored.items()]
    return found


def _delivered(span: _Span) -> dict[str, Floats]:
    """Return the power of batteries under the site and every feed, per slot."""
    site, found = span.plan.snapshot.site, dict[str, Floats]()
    powers = {entry.name: span.cut(entry.power_w) for entry in span.plan.storages}
    for storage in site.storages:
        if storage.kind == "battery" and storage.name in powers:
            for zone in (site.name, *SiteIndex.of(site).feeds_above(storage.zone)):
                found[zone] = found.get(zone, 0.0) + powers[storage.name]
    return found


def _cooled(span: _Span) -> dict[tuple[str, str], Floats]:
    """Return the heat in W that storage takes off the plants of a hall and medium, per slot; negative: it adds heat."""
    found: dict[tuple[str, str], Floats] = {}
    powers = {entry.name: span.cut(entry.power_w) for entry in span.plan.storages}
    for storage in span.plan.snapshot.site.storages:
        if storage.kind != "battery" and storage.name in powers:
            key = storage.zone, storage.medium
            found[key] = found.get(key, 0.0) + powers[storage.name]
    return found


def _charging_w(span: _Span, cooled: Mapping[tuple[str, str], Floats]) -> Floats:
    """Return the most power at the meter that charging cooling storage draws, by the steepest slope of the plants."""
    halls, total = SiteIndex.of(span.plan.snapshot.site).halls, np.zeros(span.last - span.first)
    for (hall, medium), heat_w in cooled.items():
        slopes = plant_slopes(halls[hall], medium, span.moments)
        total += np.maximum(0.0, -heat_w) * max(steep for _, _, steep in slopes)
    return total


def _nodes(racks: Sequence[Rack]) -> tuple[str, ...]:
    return tuple(node for rack in racks for node in rack.nodes)


def _most_w(site: Site, hall: Hall) -> float:
    return sum(site.node_types[rack.node_type].max_power_w * len(rack.nodes) for rack in hall.racks())


def _liquid(site: Site, rack: Rack) -> float:
    return site.node_types[rack.node_type].liquid_fraction


def _meter(span: _Span, budget_w: Floats) -> Budget:
    """Count each hall as a power at no load plus a steepest chord, over the weathers of the lease."""
    site = span.plan.snapshot.site
    nodes: list[str] = []
    weights: list[float] = []
    for hall in site.halls:
        lines = {moment: _line_above(site, hall, moment) for moment in span.moments}
        slope = max(1.0, *(line[1] for line in lines.values()))
        empty_w = {moment: line[0] for moment, line in lines.items()}
        budget_w = budget_w - np.array([max(0.0, empty_w[moment]) for moment in span.weather])
        names = _nodes(tuple(hall.racks()))
        nodes += names
        weights += [slope] * len(names)
    return span.budget(site.name, budget_w, tuple(nodes), tuple(weights))


def _line_above(site: Site, hall: Hall, moment: Weather) -> tuple[float, float]:
    """Return value in W at no load and slope of a line above the hall's power at the meter, for any of its loads.

    Convex power lies below its chords. Where plants are not convex, a line above their power takes their place.
    """
    most_w = _most_w(site, hall)
    heat_w = {m: most_w + hall.losses.power_w(most_w) for m in media(hall)}
    lines = {} if has_convex_plants(hall) else {m: _plants_above(hall, m, moment, w) for m, w in heat_w.items()}

    def power_w(liquid_w: float, air_w: float) -> float:
        load = hall_load(hall, liquid_w, air_w, moment)
        if not lines:
            return load.facility_power_w
        plants_w = sum(none_w + slope * load.heat_w[m] for m, (none_w, slope) in lines.items())
        return load.it_power_w + load.loss_power_w + plants_w

    empty_w = power_w(0.0, 0.0)
    shares = {_liquid(site, rack) for rack in hall.racks()}
    return empty_w, max((power_w(share * most_w, (1 - share) * most_w) - empty_w) / most_w for share in shares)


def _plants_above(hall: Hall, medium: str, moment: Weather, most_w: float) -> tuple[float, float]:
    """Return value at no heat and slope of a line above the plants' power, which rises with the heat.

    Between two points of a grid it is at most its value at the second; the first part of the grid counts as no heat.
    """
    grid = [most_w * part / _PARTS for part in range(1, _PARTS + 2)]
    powers_w = [medium_load(hall, medium, heat_w, moment)[1] for heat_w in grid]
    rises = zip(grid, powers_w[1:], strict=False)
    return powers_w[0], max((power_w - powers_w[0]) / heat_w for heat_w, power_w in rises)


def _heat(span: _Span, hall: Hall, medium: str, stored_w: Floats) -> Budget:
    """Convert the cooling capacity of a hall per slot, with the heat that storage takes, into node watts."""
    site = span.plan.snapshot.site
    known = {moment: hall_load(hall, 0.0, 0.0, moment).capacity_w[medium] for moment in span.moments}
    capacity_w = np.array([known[moment] for moment in span.weather]) + stored_w
    zone = f"{hall.zone}/cooling/{medium}"
    racks = tuple(hall.racks())
    if medium == "all":
        it_w = np.array([it_for_heat_w(hall.losses, float(value)) for value in capacity_w])
        return span.budget(zone, it_w, _nodes(racks))
    shares = [_liquid(site, rack) if medium == "liquid" else 1.0 - _liquid(site, rack) for rack in racks]
    if medium == "air":  # the losses of the whole hall heat its air
        capacity_w = capacity_w - hall.losses.fixed_w
        extra = loss_slope(hall.losses, 0.0, _most_w(site, hall))
        shares = [share + extra for share in shares]
    weights = [share for rack, share in zip(racks, shares, strict=True) for _ in rack.nodes]
    return span.budget(zone, capacity_w, _nodes(racks), tuple(weights))
