"""The resources of a site: GPUs per hall and node type, power of zones, heat of plants, power at the meter.

Capacity is rounded down, convex losses are inverted (`linearize`), and power at the meter follows tables from above
(`site_curves`), so that a schedule within these limits is within the true curves. Rows and racks count as a sum per
hall; placement holds each.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import media
from powerhall.site.topology import Feed, Hall, NodeType, Rack
from powerhall_optimizer.physics.hall_lines import feed_halls, idle_power_w, medium_capacity_w, most_added_w
from powerhall_optimizer.physics.hall_tables import media_slopes, meter_slope
from powerhall_optimizer.physics.linearize import it_for_air_heat_w, it_for_heat_w, loss_slope
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.problem.builder import ProblemBuilder
from powerhall_optimizer.problem.gang_blocks import BlockSize, PoolBlocks
from powerhall_optimizer.problem.resources import Resource, ResourceKind
from powerhall_optimizer.problem.site_curves import site_curves

__all__ = ["NodePool", "PoolResources"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NodePool:
    """A hall's nodes of one type: GPUs, and the resources that a W of IT power uses."""

    hall: str
    kind: NodeType
    gpus: int
    gpu_resource: int
    per_watt: tuple[tuple[int, float], ...]
    meter: float
    """W at the meter per W of IT."""
    blocks: PoolBlocks
    block_resources: Mapping[BlockSize, int] = field(default_factory=dict)
    """Resources that count parts in blocks, by level and size."""


class PoolResources:
    """Adds the resources of every hall, feed and the site to the builder."""

    def __init__(self, conditions: SiteConditions, builder: ProblemBuilder) -> None:
        self.conditions = conditions
        self.builder = builder
        self.site = conditions.site
        self.per_watt: dict[tuple[str, str], list[tuple[int, float]]] = {}
        self.meter: dict[tuple[str, str], float] = {}

    def pools(self) -> tuple[NodePool, ...]:
        found: list[NodePool] = []
        for hall in self.site.halls:
            counts: dict[str, int] = {}
            for rack in hall.racks():
                counts[rack.node_type] = counts.get(rack.node_type, 0) + self._gpus(rack)
            for kind in counts:
                self.per_watt[hall.zone, kind] = []
            self._hall(hall, tuple(counts))
            for name, gpus in counts.items():
                resource = self.builder.resource(Resource(hall.zone, ResourceKind.GPUS, node_type=name), gpus)
                blocks = PoolBlocks(self.conditions, hall.zone, name)
                found.append(NodePool(hall.zone, self.site.node_types[name], gpus, resource, (), 1.0, blocks))
        for feed in self.site.feeds:
            self._feed(feed)
        block_resources = [self._blocks(pool.blocks) for pool in found]
        self._meter()
        return tuple(
            replace(
                pool,
                per_watt=tuple(self.per_watt[pool.hall, pool.kind.name]),
                meter=self.meter[pool.hall, pool.kind.name],
                block_resources=numbers,
            )
            for pool, numbers in zip(found, block_resources, strict=True)
        )

    def _blocks(self, blocks: PoolBlocks) -> dict[BlockSize, int]:
        """Count the parts of gangs that the blocks of a pool hold, for the sizes that the queue has."""
        jobs = self.conditions.snapshot.jobs
        found: dict[BlockSize, int] = {}
        for level, size in blocks.counted(jobs):
            key = Resource(blocks.hall, ResourceKind.BLOCKS, node_type=blocks.kind, level=level, size=size)
            found[level, size] = self.builder.resource(key, blocks.capacity(level, size, jobs))
        return found

    def _gpus(self, rack: Rack) -> int:
        return self.conditions.free_gpus(rack)

    def _add(self, resource: Resource, what: str, free_w: Floats, slopes: Mapping[tuple[str, str], float]) -> None:
        self.conditions.refuse_below(resource.zone, what, free_w)
        number = self.builder.resource(resource, np.floor(np.clip(free_w, 0, 2**45)).astype(np.int64))
        for key, slope in slopes.items():
            if slope > 0:
                self.per_watt[key].append((number, slope))

    def _hall(self, hall: Hall, kinds: tuple[str, ...]) -> None:
        base = self.conditions.hall_base(hall)
        ones = {(hall.zone, kind): 1.0 for kind in kinds}
        if hall.zone in self.conditions.budgets_w:
            free_w = self.conditions.budgets_w[hall.zone] - base.it_w
            self._add(Resource(hall.zone, ResourceKind.IT_POWER), "power budget", free_w, ones)
        racks_w = self._racks_w(hall)
        if racks_w.min() < min(
            sum(self.conditions.most_added_w(rack) for rack in hall.racks()), most_added_w(self.conditions, hall)
        ):
            self._add(Resource(hall.zone, ResourceKind.RACK_POWER), "power of rows and racks", racks_w, ones)
        liquid = {(hall.zone, k): self.site.node_types[k].liquid_fraction for k in kinds}
        for medium in media(hall):
            capacity = medium_capacity_w(self.conditions, hall, medium)
            if medium == "all":
                free_w = np.array([it_for_heat_w(hall.losses, c) for c in capacity]) - base.it_w
                slopes = ones
            elif medium == "liquid":
                free_w, slopes = capacity - base.liquid_w, liquid
            else:
                free_w, slopes = self._air(hall, capacity, liquid)
            self._add(Resource(hall.zone, ResourceKind.HEAT, medium), f"cooling capacity ({medium})", free_w, slopes)

    def _air(
        self, hall: Hall, capacity_w: Floats, liquid: Mapping[tuple[str, str], float]
    ) -> tuple[Floats, dict[tuple[str, str], float]]:
        """Return heat to air that jobs may add, counted at the idle hall's slope of the losses, and a W of IT's part.

        The losses' curve is inverted per node type; of several types the one that reaches it first sets the capacity,
        unless the curve rises by less up to all that jobs can add.
        """
        base, losses = self.conditions.hall_base(hall), hall.losses
        room = capacity_w - base.air_w - losses.power_w(base.it_w)
        slope = loss_slope(losses, base.it_w, base.it_w)
        slopes = {key: 1.0 - share + slope for key, share in liquid.items()}
        roots = [
            slopes[key] * np.array([it_for_air_heat_w(losses, 1.0 - share, base.it_w, w) for w in room.tolist()])
            for key, share in liquid.items()
            if slopes[key] > 0
        ]
        if not roots:
            return room, slopes
        curved_w = losses.quadratic_per_w * most_added_w(self.conditions, hall) ** 2
        free_w = np.minimum(np.maximum(np.min(roots, axis=0), room - curved_w), np.max(roots, axis=0))
        return np.where(room < 0, room, free_w), slopes

    def _racks_w(self, hall: Hall) -> Floats:
        """Return the power that the hall's racks and rows can carry together per slot."""
        total = np.zeros(self.conditions.snapshot.slots)
        for row in hall.rows:
            racks_w = np.zeros(self.conditions.snapshot.slots)
            for rack in row.racks:
                racks_w += np.minimum(self._left_w(rack.zone, (rack,)), self.conditions.most_added_w(rack))
            total += np.minimum(self._left_w(row.zone, row.racks), racks_w)
        return total

    def _left_w(self, zone: str, racks: Sequence[Rack]) -> Floats:
        if zone not in self.conditions.budgets_w:
            return np.full(self.conditions.snapshot.slots, np.inf)
        base = sum(self.conditions.base_w[rack.zone] for rack in racks)
        return np.maximum(0.0, self.conditions.budgets_w[zone] - base)

    def _feed(self, feed: Feed) -> None:
        halls = feed_halls(self.conditions, feed)
        if halls or any(feed.zone in self.conditions.index.feeds_above(storage.zone) for storage in self.site.storages):
            base = sum(self.conditions.base_w[rack.zone] for rack in self.conditions.index.racks_under(feed.zone))
            names = {hall.zone for hall in halls}
            slopes = {key: 1.0 for key in self.per_watt if key[0] in names}
            self._add(
                Resource(feed.zone, ResourceKind.IT_POWER),
                "power budget",
                self.conditions.budgets_w[feed.zone] - base,
                slopes,
            )

    def _meter(self) -> None:
        """The limit at the meter of the site: every hall's curve, over the IT power of its pools."""
        for hall in self.site.halls:
            slopes = media_slopes(self.conditions, hall)
            for kind in dict.fromkeys(rack.node_type for rack in hall.racks()):
                share = self.site.node_types[kind].liquid_fraction
                self.meter[hall.zone, kind] = meter_slope(self.conditions, hall, share, slopes)
        budget = self.conditions.budgets_w.get(self.site.name)
        if budget is None:
            return
        idle_w = sum(idle_power_w(self.conditions, hall) for hall in self.site.halls)
        self.conditions.refuse_below(self.site.name, "power budget", budget - idle_w)
        meter = self.builder.resource(Resource(self.site.name, ResourceKind.FACILITY_POWER), 0)
        rows: dict[tuple[str, str], int] = {}
        for key in self.per_watt:
            most_w = math.ceil(self._most_w(*key)) + 1
            rows[key] = self.builder.resource(Resource(key[0], ResourceKind.METER_IT, node_type=key[1]), most_w)
            self.per_watt[key].append((rows[key], 1.0))
        curves = site_curves(self.conditions, meter, rows, len(self.builder.capacities().resources))
        free_w = np.floor(np.clip(budget, 0, 2**45)).astype(np.int64) - curves.idle_w.sum(axis=0)
        self.builder.set_meter(meter, np.maximum(0, free_w), curves)

    def _most_w(self, hall: str, kind: str) -> float:
        """Return the most IT power that jobs can add to a pool."""
        racks = (rack for rack in self.conditions.index.halls[hall].racks() if rack.node_type == kind)
        return sum(self.conditions.most_added_w(rack) for rack in racks)
