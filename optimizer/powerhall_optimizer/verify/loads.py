"""What a plan really loads: IT power of every zone, heat and facility power per slot, from its assignments alone.

Written without the problem builder: true convex losses and cooling curves, no straight lines, no solver, no numba.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.cooling import HallLoad, Weather, hall_load
from powerhall.hostlist import expand
from powerhall.plan import Assignment, Plan, Snapshot
from powerhall.topology import Hall, Rack

__all__ = ["Loads", "Overview", "budget_w", "plan_loads", "slot_span", "zone_budgets"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Overview:
    """A hall over the horizon: facility power, cooling power and losses, heat and capacity per medium, all in W."""

    facility_w: Floats
    cooling_w: Floats
    loss_w: Floats
    heat_w: dict[str, Floats]
    capacity_w: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Loads:
    """IT power per zone and slot (the site's entry is facility power), and every hall's overview."""

    zone_w: dict[str, Floats]
    halls: dict[str, Overview]


def zone_budgets(snapshot: Snapshot) -> dict[str, Floats]:
    """Return the budget per slot in W of every zone that has one, margins not taken off."""
    found: dict[str, Floats] = {}
    for zone, limit in snapshot.site.limits_w().items():
        series = snapshot.site.budgets.get(zone)
        if limit is None and series is None:
            continue
        values = np.full(snapshot.slots, np.inf if limit is None else limit)
        if series is not None:
            step = series.slots(snapshot.start_s, snapshot.slot_s, snapshot.slots, "min")
            values = np.minimum(values, step)
        found[zone] = values
    return found


def budget_w(snapshot: Snapshot, zone: str) -> Floats | None:
    """Return one zone's budget per slot in W; None where it has none."""
    return zone_budgets(snapshot).get(zone)


def slot_span(snapshot: Snapshot, assignment: Assignment) -> tuple[int, int]:
    """Return the first slot and the one after the last in which the job runs, cut to the horizon."""
    first = (assignment.start_s - snapshot.start_s) // snapshot.slot_s
    last = -(-(assignment.end_s - snapshot.start_s) // snapshot.slot_s)
    return min(max(first, 0), snapshot.slots), min(max(last, 0), snapshot.slots)


def _rack_w(snapshot: Snapshot, assignments: Sequence[Assignment]) -> dict[str, Floats]:
    """Return the IT power of every rack per slot."""
    down, stale = set(snapshot.down_nodes), set(snapshot.stale_nodes)
    change: dict[str, Floats] = {}
    for rack in snapshot.site.racks():
        kind = snapshot.site.node_types[rack.node_type]
        steps = np.zeros(snapshot.slots + 1)
        for node in rack.nodes:
            if node not in down:
                steps[0] += kind.max_power_w if node in stale else kind.idle_power_w
        change[rack.zone] = steps
    uncounted = down | stale
    for entry in assignments:
        if entry.node_type not in snapshot.site.node_types:
            continue
        kind = snapshot.site.node_types[entry.node_type]
        added_w = max(0.0, entry.gpu_power_w - kind.idle_power_w / kind.gpus)
        first, last = slot_span(snapshot, entry)
        for placement in entry.placements:
            if placement.rack not in change:
                continue
            nodes = expand(placement.nodes)
            counted = sum(node not in uncounted for node in nodes) if uncounted else len(nodes)
            change[placement.rack][first] += counted * placement.gpus_per_node * added_w
            change[placement.rack][last] -= counted * placement.gpus_per_node * added_w
    return {zone: np.cumsum(steps)[:-1] for zone, steps in change.items()}


def _weather(snapshot: Snapshot) -> list[Weather]:
    if not snapshot.dry_bulb_c:
        return [Weather(20.0, 15.0)] * snapshot.slots
    return [Weather(d, w) for d, w in zip(snapshot.dry_bulb_c, snapshot.wet_bulb_c, strict=True)]


def _overview(hall: Hall, liquid_w: Floats, air_w: Floats, weather: Sequence[Weather]) -> Overview:
    known: dict[tuple[float, float, Weather], HallLoad] = {}
    loads: list[HallLoad] = []
    for key in zip(liquid_w.tolist(), air_w.tolist(), weather, strict=True):
        if key not in known:
            known[key] = hall_load(hall, *key)
        loads.append(known[key])
    media = loads[0].heat_w
    return Overview(
        np.array([load.facility_power_w for load in loads]),
        np.array([load.cooling_power_w for load in loads]),
        np.array([load.loss_power_w for load in loads]),
        {medium: np.array([load.heat_w[medium] for load in loads]) for medium in media},
        {medium: np.array([load.capacity_w[medium] for load in loads]) for medium in media},
    )


def _sum(rack_w: dict[str, Floats], racks: Sequence[Rack], slots: int) -> Floats:
    total = np.zeros(slots)
    for rack in racks:
        total += rack_w[rack.zone]
    return total


def plan_loads(plan: Plan) -> Loads:
    """Return what the plan's assignments load in every slot of its horizon."""
    s = plan.snapshot
    rack_w = _rack_w(s, plan.assignments)
    zone_w = dict(rack_w)
    halls: dict[str, Overview] = {}
    weather = _weather(s)
    for hall in s.site.halls:
        liquid, air = np.zeros(s.slots), np.zeros(s.slots)
        for row in hall.rows:
            zone_w[row.zone] = _sum(rack_w, row.racks, s.slots)
        for rack in hall.racks():
            share = s.site.node_types[rack.node_type].liquid_fraction
            liquid += share * rack_w[rack.zone]
            air += (1 - share) * rack_w[rack.zone]
        zone_w[hall.zone] = liquid + air
        halls[hall.zone] = _overview(hall, liquid, air, weather)
    for feed in s.site.feeds:
        zone_w[feed.zone] = _sum(rack_w, s.site.feed_racks(feed), s.slots)
    zone_w[s.site.name] = sum((overview.facility_w for overview in halls.values()), np.zeros(s.slots))
    return Loads(zone_w, halls)
