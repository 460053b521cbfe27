"""Capacities of a site: every resource per slot in whole units, and the units of each that a W of IT uses.

The units are GPUs (`HALL.TYPE.gpus`), W of IT (`ZONE.it_w`, `HALL.racks_w`), W of heat or of IT on the plants
(`HALL.heat_all_w`, `HALL.heat_liquid_w`, `HALL.heat_air_w`) and weighted W at the meter (`SITE.facility_w`).
Capacities are rounded down. Losses and cooling power are convex in the load, so the chord over the range that jobs can
reach lies above them: a plan within these straight lines is within the true curves.

The formulas are those of "From a snapshot to whole numbers" in docs/optimizer-model.md, evaluated in double precision
in the order written there, because a capacity that is rounded down changes by 1 with the last bit of a sum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import hall_load, media, plant_capacity_w
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Snapshot, gpu_power_w
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Feed, Hall, Losses, NodeType, Rack
from powerhall.units import format_power
from powerhall_optimizer.verify.loads import outdoor_air, zone_budgets
from powerhall_optimizer.verify.times import time_text

__all__ = ["Capacities", "Pool", "it_at_heat_w"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_MOST = 2.0**45
"""Cap of capacities: larger ones never bind, and products with prices stay small."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The usable nodes of one type in one hall: their GPUs, and the resources that a W of IT uses."""

    hall: str
    kind: NodeType
    gpus: int
    gpu_resource: str
    per_w: dict[str, float]
    """Units of a resource per W of IT power above idle."""
    meter_w_per_w: float
    """W at the meter per W of IT power, the mean over the slots."""


class _HallLines:
    """The straight lines that bound one hall: its idle load, the load that jobs can add, and the rise at the meter."""

    def __init__(self, site: "Capacities", hall: Hall) -> None:
        kinds = site.snapshot.site.node_types
        self.hall = hall
        self.kinds = list(dict.fromkeys(rack.node_type for rack in hall.racks()))
        self.liquid_w = self.air_w = 0.0
        for rack in hall.racks():  # added one by one: `sum` would round otherwise
            share = kinds[rack.node_type].liquid_fraction
            self.liquid_w += share * site.idle_rack_w(rack)
            self.air_w += (1 - share) * site.idle_rack_w(rack)
        self.idle_w = self.liquid_w + self.air_w
        self.jobs_w = sum(site.jobs_on_rack_w(rack) for rack in hall.racks())
        self.most_w = self.jobs_w
        if hall.zone in site.limits_w:
            self.most_w = min(self.jobs_w, max(0.0, float(np.max(site.limits_w[hall.zone])) - self.idle_w))
        at_idle = {air: self._meter_w(self.liquid_w, self.air_w, air) for air in set(site.air)}
        self.idle_meter_w = np.array([at_idle[air] for air in site.air])
        self.rise_w: dict[str, Floats] = {}
        for kind in self.kinds:
            share = kinds[kind].liquid_fraction
            corner = self.liquid_w + share * self.most_w, self.air_w + (1 - share) * self.most_w
            full = {air: self._meter_w(*corner, air) for air in at_idle}
            self.rise_w[kind] = np.array([full[air] for air in site.air]) - self.idle_meter_w

    def _meter_w(self, liquid_w: float, air_w: float, air: Weather) -> float:
        return hall_load(self.hall, liquid_w, air_w, air).facility_power_w

    def slope(self, kind: str) -> float:
        """W at the meter per W of IT power on one node type."""
        return float(np.mean(self.rise_w[kind])) / self.most_w if self.most_w > 0 else 1.0

    def steepest(self) -> list[tuple[float, float]]:
        """Per slot: the most W at the meter per weighted W, and the most weighted W that jobs can add."""
        weights = {kind: self.slope(kind) * self.most_w for kind in self.kinds}
        most = max(weights.values())
        ratios = [(self.rise_w[kind] / weight).tolist() for kind, weight in weights.items()]
        return [(max(slot), most) for slot in zip(*ratios, strict=True)]


class Capacities:
    """The capacities of a snapshot: `amounts[resource]` per slot, `pools[hall, node type]` that use them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.index = SiteIndex.of(snapshot.site)
        self.air = outdoor_air(snapshot)
        self.closed = {*snapshot.down_nodes, *snapshot.stale_nodes}
        self.limits_w = {
            zone: np.maximum(0.0, budget_w - snapshot.margin_w.get(zone, 0.0))
            for zone, budget_w in zone_budgets(snapshot).items()
        }
        self.amounts: dict[str, Ints] = {}
        self.pools: dict[tuple[str, str], Pool] = {}
        self._halls = [_HallLines(self, hall) for hall in snapshot.site.halls]
        for lines in self._halls:
            self._hall(lines)
        for feed in snapshot.site.feeds:
            self._feed(feed)
        self._site()

    def idle_rack_w(self, rack: Rack) -> float:
        """IT power of a rack without jobs: nothing for nodes that are down, the maximum for nodes without telemetry."""
        kind = self.snapshot.site.node_types[rack.node_type]
        up = set(rack.nodes).difference(self.snapshot.down_nodes)
        stale = len(up.intersection(self.snapshot.stale_nodes))
        return (len(up) - stale) * kind.idle_power_w + stale * kind.max_power_w

    def usable_gpus(self, rack: Rack) -> int:
        """GPUs on which jobs may start."""
        nodes = sum(node not in self.closed for node in rack.nodes)
        return self.snapshot.site.node_types[rack.node_type].gpus * nodes

    def jobs_on_rack_w(self, rack: Rack) -> float:
        """Return the most IT power in W that jobs of any class can add to a rack."""
        kind = self.snapshot.site.node_types[rack.node_type]
        classes = (None, *self.snapshot.site.job_classes.values())
        highest_w = max(gpu_power_w(kind, mode, job_class) for mode in kind.modes for job_class in classes)
        nodes = sum(node not in self.closed for node in rack.nodes)
        return max(0.0, highest_w - kind.idle_gpu_power_w) * kind.gpus * nodes

    @cached_property
    def meter(self) -> tuple[Floats, Floats] | None:
        """Per slot: weighted IT power that the meter's budget carries, and how much more one more W would carry."""
        budget_w = self.limits_w.get(self.snapshot.site.name)
        if budget_w is None:
            return None
        free_w = budget_w - sum(lines.idle_meter_w for lines in self._halls)
        self._refuse_idle(self.snapshot.site.name, "power budget", free_w)
        halls = [lines.steepest() for lines in self._halls if lines.most_w > 0]
        slots = [sorted(slot, reverse=True) for slot in zip(*halls, strict=True)] or [[]] * len(free_w)
        free = np.clip(free_w, 0, _MOST).tolist()
        carried = np.array([_carried_w(free_w, slot) for free_w, slot in zip(free, slots, strict=True)])
        return carried, np.array([_gain(free_w, slot) for free_w, slot in zip(free, slots, strict=True)])

    def _hall(self, lines: _HallLines) -> None:
        hall = lines.hall
        for name in lines.kinds:
            gpus = sum(self.usable_gpus(rack) for rack in hall.racks() if rack.node_type == name)
            kind = self.snapshot.site.node_types[name]
            resource = self._free_name(f"{hall.zone}.{name}.gpus")
            self.amounts[resource] = np.full(self.snapshot.slots, gpus, np.int64)
            self.pools[hall.zone, name] = Pool(hall.zone, kind, gpus, resource, {}, lines.slope(name))
        own = [self.pools[hall.zone, name] for name in lines.kinds]
        if hall.zone in self.limits_w:
            self._limit(hall.zone, "it_w", "power budget", self.limits_w[hall.zone] - lines.idle_w, _each(own))
        racks_w = self._racks_w(hall)
        if racks_w.min() < min(lines.jobs_w, lines.most_w):
            self._limit(hall.zone, "racks_w", "power of rows and racks", racks_w, _each(own))
        for medium in media(hall):
            free_w, slopes = self._heat(lines, medium, own)
            self._limit(hall.zone, f"heat_{medium}_w", f"cooling capacity ({medium})", free_w, slopes)

    def _free_name(self, name: str) -> str:
        """Return the name, after giving the pool that has it already a name of its own.

        Type `c` in hall `a.b` and type `b.c` in hall `a` have the same name; a certificate prices the later one.
        """
        for place, pool in self.pools.items():
            if pool.gpu_resource == name:
                own = self._free_name(f"{name} in {pool.hall}")
                self.amounts[own] = self.amounts.pop(name)
                self.pools[place] = replace(pool, gpu_resource=own)
        return name

    def _heat(self, lines: _HallLines, medium: str, pools: list[Pool]) -> tuple[Floats, list[tuple[Pool, float]]]:
        """Return the heat that the plants of a medium can take up above the idle hall's, and the heat of a W of IT."""
        losses = lines.hall.losses
        plants = [plant for plant in lines.hall.plants if plant.serves == medium]
        capacity_w = np.array([sum(plant_capacity_w(plant, air) for plant in plants) for air in self.air])
        if medium == "all":
            return np.array([it_at_heat_w(losses, c) for c in capacity_w.tolist()]) - lines.idle_w, _each(pools)
        if medium == "liquid":
            return capacity_w - lines.liquid_w, [(pool, pool.kind.liquid_fraction) for pool in pools]
        chord = losses.linear + losses.quadratic_per_w * (lines.idle_w + (lines.idle_w + lines.most_w))
        slopes = [(pool, 1.0 - pool.kind.liquid_fraction + chord) for pool in pools]
        return capacity_w - lines.air_w - losses.power_w(lines.idle_w), slopes

    def _racks_w(self, hall: Hall) -> Floats:
        """Power that jobs can add within rows and racks: the sum over rows of the lower of row and sum of racks."""
        total_w = np.zeros(self.snapshot.slots)
        for row in hall.rows:
            row_w = np.zeros(self.snapshot.slots)
            for rack in row.racks:
                row_w = row_w + np.minimum(self._left_w(rack.zone, [rack]), self.jobs_on_rack_w(rack))
            total_w = total_w + np.minimum(self._left_w(row.zone, row.racks), row_w)
        return total_w

    def _left_w(self, zone: str, racks: Sequence[Rack]) -> Floats:
        limit_w = self.limits_w.get(zone, np.full(self.snapshot.slots, np.inf))
        return np.maximum(0.0, limit_w - sum(self.idle_rack_w(rack) for rack in racks))

    def _feed(self, feed: Feed) -> None:
        """A feed limits the halls that hang under it with all of their racks; it also limits a battery on it."""
        site = self.snapshot.site
        racks = self.index.racks_under(feed.zone)
        below = {rack.zone for rack in racks}
        whole = {hall.zone for hall in site.halls if all(rack.zone in below for rack in hall.racks())}
        if not whole and all(feed.zone not in self.index.feeds_above(storage.zone) for storage in site.storages):
            return
        free_w = self.limits_w[feed.zone] - sum(self.idle_rack_w(rack) for rack in racks)
        pools = [pool for pool in self.pools.values() if pool.hall in whole]
        self._limit(feed.zone, "it_w", "power budget", free_w, _each(pools))

    def _site(self) -> None:
        if self.meter is not None:
            slopes = [(pool, pool.meter_w_per_w) for pool in self.pools.values()]
            self._limit(self.snapshot.site.name, "facility_w", "power budget", self.meter[0], slopes)

    def _limit(self, zone: str, unit: str, what: str, free_w: Floats, slopes: list[tuple[Pool, float]]) -> None:
        self._refuse_idle(zone, what, free_w)
        self.amounts[f"{zone}.{unit}"] = np.floor(np.clip(free_w, 0, _MOST)).astype(np.int64)
        for pool, slope in slopes:
            if slope > 0:
                pool.per_w[f"{zone}.{unit}"] = slope

    def _refuse_idle(self, zone: str, what: str, free_w: Floats) -> None:
        """Refuse a limit below the idle load; where only nodes without telemetry exceed it, no job starts instead."""
        free_w = free_w + self.snapshot.margin_w.get(zone, 0.0)
        slot = int(np.argmin(free_w))
        if free_w[slot] < -0.5 and not self.snapshot.stale_nodes:
            when = time_text(self.snapshot.start_s + slot * self.snapshot.slot_s)
            lacking = format_power(-float(free_w[slot]))
            raise Rejected(
                f"site: {zone}: {what} at {when} is {lacking} below the idle load; must be at least that load"
            )


def _each(pools: Sequence[Pool]) -> list[tuple[Pool, float]]:
    return [(pool, 1.0) for pool in pools]


def it_at_heat_w(losses: Losses, heat_w: float) -> float:
    """Return the IT power in W at which IT and losses together give off `heat_w`: the root of the quadratic."""
    left_w = heat_w - losses.fixed_w
    linear, quadratic = 1.0 + losses.linear, losses.quadratic_per_w
    if left_w <= 0:
        return 0.0
    if quadratic == 0:
        return left_w / linear
    return 2 * left_w / (linear + math.sqrt(linear * linear + 4 * quadratic * left_w))


def _carried_w(free_w: float, steepest: Sequence[tuple[float, float]]) -> float:
    """Return the weighted IT power that is safe within `free_w` at the meter, however jobs spread over the halls.

    `steepest` has per hall the W at the meter per weighted W and the most weighted W, the steepest hall first: filling
    them in this order reaches the budget with the least weighted W.
    """
    carried_w = 0.0
    for steepness, most_w in steepest:
        if free_w <= steepness * most_w:
            return carried_w + max(0.0, free_w) / max(steepness, 1e-12)
        free_w -= steepness * most_w
        carried_w += most_w
    return carried_w + free_w


def _gain(free_w: float, steepest: Sequence[tuple[float, float]]) -> float:
    """Return the slope of `_carried_w`, which is convex: its tangent is safe for more power and for less."""
    gain = 1.0
    for steepness, most_w in steepest:
        per_w = 1.0 / max(steepness, 1e-12)
        if free_w < steepness * most_w:
            return per_w
        gain = max(1.0, per_w)
        free_w -= steepness * most_w
    return gain
