"""Capacities of a site for the bound: what every plan that the checker accepts keeps, in whole units per slot.

The units are GPUs (`HALL.TYPE.gpus`), W of IT (`ZONE.it_w`, `HALL.racks_w`) and W of heat or of IT on the plants
(`HALL.heat_all_w`, `HALL.heat_liquid_w`, `HALL.heat_air_w`). Capacities are rounded up, with the half W that the
checker allows, and usage down, so that no plan is cut off. `HALL.TYPE.meter_it` is the IT power of a pool as the limit
at the meter counts it; that limit itself, `SITE.facility_w`, is a sum of curves (`meter`).

Formulas are those of "From a snapshot to whole numbers" in docs/reference/optimizer-model.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import hall_load, media, medium_load, plant_capacity_w
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Snapshot, gpu_power_w
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Feed, Hall, Losses, NodeType, Rack
from powerhall.units import format_power
from powerhall_optimizer.verify.gang_blocks import pool_blocks
from powerhall_optimizer.verify.loads import gpus_of, held_by_node, outdoor_air, zone_budgets
from powerhall_optimizer.verify.times import time_text

__all__ = ["Capacities", "HallLoadAtIdle", "Pool", "air_slope", "it_at_air_heat_w", "it_at_heat_w"]

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
    """W at the meter that the value counts per W of IT power; it depends on no limit."""
    most_w: float
    """IT power that jobs can add when they use every GPU."""


class HallLoadAtIdle:
    """A hall without jobs: heat to liquid and to air in W, and the IT power that jobs can add on all of its racks."""

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

    def media_slopes(self, air: Sequence[Weather]) -> dict[str, float]:
        """Return per medium the W that its plants draw per W of heat: the mean up to capacity, over the slots."""
        known: dict[tuple[str, Weather], float] = {}
        for medium in media(self.hall):
            for moment in set(air):
                capacity_w, none_w = medium_load(self.hall, medium, 0.0, moment)
                full_w = medium_load(self.hall, medium, capacity_w, moment)[1] if capacity_w > 0 else none_w
                known[medium, moment] = (full_w - none_w) / capacity_w if capacity_w > 0 else 0.0
        return {m: float(np.mean([known[m, moment] for moment in air])) for m in media(self.hall)}

    def meter_slope(self, share: float, slopes: dict[str, float]) -> float:
        """Return W at the meter per W of IT of which `share` goes to liquid: IT, losses, and the plants' mean."""
        losses = self.hall.losses
        loss = losses.linear + losses.quadratic_per_w * (self.idle_w + (self.idle_w + self.jobs_w))
        if "all" in slopes:
            return (1.0 + loss) * (1.0 + slopes["all"])
        return 1.0 + loss + share * slopes.get("liquid", 0.0) + (1.0 - share + loss) * slopes.get("air", 0.0)


class Capacities:
    """The capacities of a snapshot: `amounts[resource]` per slot, `pools[hall, node type]` that use them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.index = SiteIndex.of(snapshot.site)
        self.air = outdoor_air(snapshot)
        self.closed = {*snapshot.off_nodes, *snapshot.down_nodes, *snapshot.stale_nodes}
        self.fixed = {*snapshot.off_nodes, *snapshot.stale_nodes}
        """Nodes whose power no job changes."""
        self.held = held_by_node(snapshot)
        self.limits_w = {
            zone: np.maximum(0.0, budget_w - snapshot.margin_w.get(zone, 0.0))
            for zone, budget_w in zone_budgets(snapshot).items()
        }
        self.amounts: dict[str, Ints] = {}
        self.pools: dict[tuple[str, str], Pool] = {}
        self.meter_most: dict[tuple[str, str], Ints] = {}
        """Per pool and slot the most IT power of jobs in W, the limit at the meter apart."""
        self.halls = [HallLoadAtIdle(self, hall) for hall in snapshot.site.halls]
        for idle in self.halls:
            self._hall(idle)
        for feed in snapshot.site.feeds:
            self._feed(feed)
        self._site()
        self.blocks = pool_blocks(snapshot, self.pools)
        for blocks in self.blocks.values():
            self.amounts |= blocks.amounts()

    def idle_rack_w(self, rack: Rack) -> float:
        """IT power of a rack without jobs: idle and held, 0 for nodes that are off, the maximum without telemetry."""
        kind = self.snapshot.site.node_types[rack.node_type]
        up = set(rack.nodes).difference(self.snapshot.off_nodes)
        stale = len(up.intersection(self.snapshot.stale_nodes))
        held = [pair for node in rack.nodes if node not in self.fixed for pair in self.held.get(node, ())]
        held_w = sum(gpus * max(0.0, gpu_w - kind.idle_gpu_power_w) for gpus, gpu_w in held)
        return (len(up) - stale) * kind.idle_power_w + stale * kind.max_power_w + held_w

    def usable_gpus(self, rack: Rack) -> int:
        """GPUs on which jobs may start."""
        nodes = [node for node in rack.nodes if node not in self.closed]
        held = sum(gpus for node in nodes for gpus, _ in self.held.get(node, ()))
        return self.snapshot.site.node_types[rack.node_type].gpus * len(nodes) - held

    def jobs_on_rack_w(self, rack: Rack) -> float:
        """Return the most IT power in W that jobs of any class can add to a rack."""
        kind = self.snapshot.site.node_types[rack.node_type]
        classes = (None, *self.snapshot.site.job_classes.values())
        highest_w = max(gpu_power_w(kind, mode, job_class) for mode in kind.modes for job_class in classes)
        closing = {node for node in rack.nodes if node in self.closed and node not in self.fixed}
        runs = (job for job in self.snapshot.jobs if closing and job.state == "running")
        gpus = self.usable_gpus(rack) + sum(gpus_of(job, closing) for job in runs)
        return max(0.0, highest_w - kind.idle_gpu_power_w) * gpus

    def _hall(self, idle: HallLoadAtIdle) -> None:
        hall = idle.hall
        slopes = idle.media_slopes(self.air)
        for name in idle.kinds:
            gpus = sum(self.usable_gpus(rack) for rack in hall.racks() if rack.node_type == name)
            kind = self.snapshot.site.node_types[name]
            resource = self._free_name(f"{hall.zone}.{name}.gpus")
            self.amounts[resource] = np.full(self.snapshot.slots, gpus, np.int64)
            most_w = sum(self.jobs_on_rack_w(rack) for rack in hall.racks() if rack.node_type == name)
            per_w = idle.meter_slope(kind.liquid_fraction, slopes)
            self.pools[hall.zone, name] = Pool(hall.zone, kind, gpus, resource, {}, per_w, most_w)
        own = [self.pools[hall.zone, name] for name in idle.kinds]
        if hall.zone in self.limits_w:
            self._limit(hall.zone, "it_w", "power budget", self.limits_w[hall.zone] - idle.idle_w, _each(own))
        racks_w = self._racks_w(hall)
        if racks_w.min() < min(idle.jobs_w, idle.most_w):
            half_w = 0.5 * sum(1 + len(row.racks) for row in hall.rows)
            self._limit(hall.zone, "racks_w", "power of rows and racks", racks_w + half_w, _each(own))
        for medium in media(hall):
            free_w, per_w_of = self._heat(idle, medium, own)
            self._limit(hall.zone, f"heat_{medium}_w", f"cooling capacity ({medium})", free_w, per_w_of)

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

    def _heat(self, idle: HallLoadAtIdle, medium: str, pools: list[Pool]) -> tuple[Floats, list[tuple[Pool, float]]]:
        """Return the heat that the plants of a medium can take up above the idle hall's, and the heat of a W of IT."""
        losses = idle.hall.losses
        capacity_w = self.plants_w(idle.hall, medium)
        if medium == "all":
            return np.array([it_at_heat_w(losses, c + 1.0) for c in capacity_w.tolist()]) - idle.idle_w, _each(pools)
        if medium == "liquid":
            return capacity_w - idle.liquid_w, [(pool, pool.kind.liquid_fraction) for pool in pools]
        room_w = capacity_w - idle.air_w - losses.power_w(idle.idle_w)
        slopes = [(pool, air_slope(losses, pool.kind, idle.idle_w)) for pool in pools]
        most_w = np.zeros(len(room_w))
        for pool, slope in slopes:
            if slope > 0:
                share = 1.0 - pool.kind.liquid_fraction
                it_w = [it_at_air_heat_w(losses, share, idle.idle_w, w + 1.0) for w in room_w.tolist()]
                most_w = np.maximum(most_w, slope * np.array(it_w))
        used = any(slope > 0 for _, slope in slopes)
        return np.where((room_w < 0) | (not used), room_w, most_w), slopes

    def plants_w(self, hall: Hall, medium: str) -> Floats:
        """Heat per slot that the plants of a medium take."""
        plants = [plant for plant in hall.plants if plant.serves == medium]
        at = {air: sum(plant_capacity_w(plant, air) for plant in plants) for air in dict.fromkeys(self.air)}
        return np.array([at[air] for air in self.air], float)

    def reach_w(self, idle: HallLoadAtIdle) -> Floats:
        """Return the most IT power that jobs can add to a hall per slot, by its own limits, its feeds' and cooling."""
        hall, site = idle.hall, self.snapshot.site
        tops = [np.full(self.snapshot.slots, idle.jobs_w)]
        if hall.zone in self.limits_w:
            tops.append(self.limits_w[hall.zone] - idle.idle_w)
        for feed in site.feeds:
            if hall.zone in self._whole_halls(feed):
                idle_w = sum(self.idle_rack_w(rack) for rack in self.index.racks_under(feed.zone))
                under = [s for s in site.storages if feed.zone in self.index.feeds_above(s.zone)]
                tops.append(self.limits_w[feed.zone] - idle_w + sum(s.discharge_w for s in under))
        shares = [site.node_types[kind].liquid_fraction for kind in idle.kinds]
        for medium in media(hall):
            beside = [s for s in site.storages if s.kind != "battery" and (s.zone, s.medium) == (hall.zone, medium)]
            capacity_w = self.plants_w(hall, medium) + sum(s.discharge_w for s in beside) + 1.0
            if medium == "all":
                tops.append(np.array([it_at_heat_w(hall.losses, c) for c in capacity_w]) - idle.idle_w)
            elif medium == "air":
                room_w = capacity_w - idle.air_w - hall.losses.power_w(idle.idle_w)
                share = 1 - max(shares)
                tops.append(np.array([it_at_air_heat_w(hall.losses, share, idle.idle_w, w) for w in room_w]))
            elif min(shares) > 0:
                tops.append((capacity_w - idle.liquid_w) / min(shares))
        top_w: Floats = np.maximum(0.0, np.minimum.reduce(tops))
        return top_w

    def _whole_halls(self, feed: Feed) -> set[str]:
        """The halls that hang under a feed with all of their racks."""
        below = {rack.zone for rack in self.index.racks_under(feed.zone)}
        return {hall.zone for hall in self.snapshot.site.halls if all(rack.zone in below for rack in hall.racks())}

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
        whole = self._whole_halls(feed)
        if not whole and all(feed.zone not in self.index.feeds_above(storage.zone) for storage in site.storages):
            return
        free_w = self.limits_w[feed.zone] - sum(self.idle_rack_w(rack) for rack in racks)
        pools = [pool for pool in self.pools.values() if pool.hall in whole]
        self._limit(feed.zone, "it_w", "power budget", free_w, _each(pools))

    def _site(self) -> None:
        """The limit at the meter, and the IT power of every pool that it counts."""
        name = self.snapshot.site.name
        limit_w = self.limits_w.get(name)
        if limit_w is None:
            return
        idle_w = self.idle_meter_w()
        self._refuse_idle(name, "power budget", limit_w - idle_w)
        top_w = np.maximum(limit_w, idle_w) + 0.5
        self.amounts[f"{name}.facility_w"] = np.floor(np.clip(top_w, 0, _MOST)).astype(np.int64) + 2
        for idle in self.halls:
            reach_w = self.reach_w(idle)
            for pool in (self.pools[idle.hall.zone, kind] for kind in idle.kinds):
                most_w = np.clip(np.minimum(pool.most_w, reach_w), 0, _MOST)
                resource = self.meter_name(pool)
                self.meter_most[pool.hall, pool.kind.name] = np.floor(most_w).astype(np.int64) + 3
                self.amounts[resource] = self.meter_most[pool.hall, pool.kind.name]
                pool.per_w[resource] = 1.0

    @staticmethod
    def meter_name(pool: Pool) -> str:
        """Return the name of a pool's IT power as the limit at the meter counts it."""
        return f"{pool.hall}.{pool.kind.name}.meter_it"

    def idle_meter_w(self) -> Floats:
        """Return the power at the meter per slot when no job runs, in W."""
        total_w = np.zeros(self.snapshot.slots)
        for idle in self.halls:
            at = {air: hall_load(idle.hall, idle.liquid_w, idle.air_w, air).facility_power_w for air in set(self.air)}
            total_w = total_w + np.array([at[air] for air in self.air])
        return total_w

    def _limit(self, zone: str, unit: str, what: str, free_w: Floats, slopes: list[tuple[Pool, float]]) -> None:
        self._refuse_idle(zone, what, free_w)
        self.amounts[f"{zone}.{unit}"] = np.floor(np.clip(free_w, 0, _MOST)).astype(np.int64) + 1
        for pool, slope in slopes:
            if slope > 0:
                pool.per_w[f"{zone}.{unit}"] = slope

    def _refuse_idle(self, zone: str, what: str, free_w: Floats) -> None:
        """Refuse a limit below the idle load; where silent nodes or what is held exceed it, no job starts."""
        free_w = free_w + self.snapshot.margin_w.get(zone, 0.0)
        slot = int(np.argmin(free_w))
        if free_w[slot] < -0.5 and not (self.snapshot.stale_nodes or self.snapshot.held):
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


def it_at_air_heat_w(losses: Losses, share: float, idle_w: float, room_w: float) -> float:
    """Return the IT power in W above idle that heats the air by `room_w`: its `share`, and the losses that it adds."""
    linear, quadratic = share + losses.linear + 2.0 * losses.quadratic_per_w * idle_w, losses.quadratic_per_w
    if room_w <= 0:
        return 0.0
    if linear == 0 and quadratic == 0:
        return math.inf
    return 2 * room_w / (linear + math.sqrt(linear * linear + 4 * quadratic * room_w))


def air_slope(losses: Losses, kind: NodeType, idle_w: float) -> float:
    """Return the heat to air of a W of IT at the idle hall's losses."""
    return 1.0 - kind.liquid_fraction + (losses.linear + losses.quadratic_per_w * (idle_w + idle_w))
