"""The resources of a site: GPUs per hall and node type, power of zones, heat of plants, power at the meter.

Capacity is rounded down, and convex losses and cooling are replaced by straight lines from above (`linearize`), so that
a schedule within these limits is within the true curves. Rows and racks count as a sum per hall; placement holds each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import media, plant_capacity_w
from powerhall.site.topology import Feed, Hall, NodeType, Rack
from powerhall_optimizer.physics.hall_lines import facility_power_bounds, feed_halls, most_added_w
from powerhall_optimizer.physics.linearize import it_for_heat_w, loss_slope, site_capacity
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.problem.builder import ProblemBuilder
from powerhall_optimizer.problem.resources import Resource, ResourceKind

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
                found.append(NodePool(hall.zone, self.site.node_types[name], gpus, resource, (), 1.0))
        for feed in self.site.feeds:
            self._feed(feed)
        self._meter()
        return tuple(
            NodePool(
                r.hall,
                r.kind,
                r.gpus,
                r.gpu_resource,
                tuple(self.per_watt[r.hall, r.kind.name]),
                self.meter[r.hall, r.kind.name],
            )
            for r in found
        )

    def _gpus(self, rack: Rack) -> int:
        return self.site.node_types[rack.node_type].gpus * len(self.conditions.usable(rack))

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
        air_slope = loss_slope(hall.losses, base.it_w, base.it_w + most_added_w(self.conditions, hall))
        for medium in media(hall):
            capacity = self._capacity(hall, medium)
            if medium == "all":
                free_w = np.array([it_for_heat_w(hall.losses, c) for c in capacity]) - base.it_w
                slopes = ones
            elif medium == "liquid":
                free_w, slopes = capacity - base.liquid_w, liquid
            else:
                free_w = capacity - base.air_w - hall.losses.power_w(base.it_w)
                slopes = {key: 1.0 - share + air_slope for key, share in liquid.items()}
            self._add(Resource(hall.zone, ResourceKind.HEAT, medium), f"cooling capacity ({medium})", free_w, slopes)

    def _capacity(self, hall: Hall, medium: str) -> Floats:
        plants = [plant for plant in hall.plants if plant.serves == medium]
        return np.array([sum(plant_capacity_w(p, moment) for p in plants) for moment in self.conditions.weather])

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
        """Facility power at the site: every hall's line added up."""
        bounds = facility_power_bounds(self.conditions)
        for hall, line in zip(self.site.halls, bounds, strict=True):
            self.meter |= {(hall.zone, kind): line.slope(kind) for kind in line.added_w}
        budget = self.conditions.budgets_w.get(self.site.name)
        if budget is not None:
            free_w = budget - sum(b.idle_w for b in bounds)
            self.conditions.refuse_below(self.site.name, "power budget", free_w)
            capacity = site_capacity(bounds, np.clip(free_w, 0, 2**45))
            self._add(Resource(self.site.name, ResourceKind.FACILITY_POWER), "power budget", capacity, self.meter)
