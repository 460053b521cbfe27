"""A site as arrays: nodes in the order of racks, racks in the order of halls, and the zones above each rack.

Sizes: N nodes, R racks, H halls, T node types, Z zones below the site, P plants, C job classes, M modes. A *pool* is
the nodes of one type in one hall, number `hall * T + type`. Power is in integer nW where it is summed: what is added
and taken away again leaves no rounding behind, and 9 GW fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from powerhall.jobs.model import Job
from powerhall.physics.weather import Weather
from powerhall.plan.plan import gpu_power_w, gpu_speed
from powerhall.site.index import SiteIndex
from powerhall.site.topology import NodeType, Site
from powerhall_twin.engine.plant_curves import PlantCurves, plant_curves
from powerhall_twin.site.node_power import draw_of

__all__ = ["NO_LIMIT_NW", "NW", "DrawTables", "Layout", "SiteArrays", "to_nw"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
NW = 1e9
"""nW in a W."""
NO_LIMIT_NW = 2**62


def to_nw(power_w: float) -> int:
    """Return a power in nW."""
    return round(power_w * NW)


class Layout(NamedTuple):
    """What does not change: the tree of the site. A range ends where the next one begins."""

    racks: Ints  # [4, R+1]
    halls: Ints  # [4, H+1]
    node_rack: Ints  # [N]
    rack_zone: Ints  # zones above each rack
    type_gpus: Ints  # [T]
    type_liquid: Floats  # [T] share of the heat that goes to liquid
    losses: Floats  # [H, 3] fixed W, linear, quadratic per W


class DrawTables(NamedTuple):
    """Per class, type and mode: what one busy GPU adds to an idle node, by plan and in fact, and its speed."""

    plan_nw: Ints  # [C, T, M]
    draw_nw: Ints  # [C, T, M]
    speed: Floats  # [C, T, M] in fact
    plan_speed: Floats  # [C, T, M]


@dataclass(frozen=True)
class SiteArrays:
    """The arrays of a site, made once, and the names behind the numbers."""

    site: Site
    classes: tuple[str, ...]

    @cached_property
    def index(self) -> SiteIndex:
        """Lookups by name."""
        return SiteIndex.of(self.site)

    @cached_property
    def types(self) -> tuple[NodeType, ...]:
        """Node types in order."""
        return tuple(self.site.node_types.values())

    @cached_property
    def type_of(self) -> Mapping[str, int]:
        """The number of a node type."""
        return {kind.name: number for number, kind in enumerate(self.types)}

    @cached_property
    def hall_of(self) -> Mapping[str, int]:
        """The number of a hall."""
        return {hall.zone: number for number, hall in enumerate(self.site.halls)}

    @cached_property
    def node_names(self) -> tuple[str, ...]:
        """Names of the nodes in order."""
        return tuple(self.index.rack_of)

    @cached_property
    def node_of(self) -> Mapping[str, int]:
        """The number of a node."""
        return {name: number for number, name in enumerate(self.node_names)}

    @cached_property
    def zones(self) -> tuple[str, ...]:
        """Zones below the site, in order: feeds, halls, rows, racks."""
        return tuple(zone for zone in self.index.limits_w if zone != self.site.name)

    @cached_property
    def modes(self) -> int:
        """The most modes that a type has."""
        return max(len(kind.modes) for kind in self.types)

    @cached_property
    def layout(self) -> Layout:
        """The tree as arrays."""
        site, index = self.site, self.index
        racks = list(site.racks())
        zone_of = {zone: number for number, zone in enumerate(self.zones)}
        above = [[zone_of[zone] for zone in index.zones_above(rack.zone)] for rack in racks]
        sizes = [len(rack.nodes) for rack in racks]
        names = sorted(hall.zone for hall in site.halls)
        hall_of = [self.hall_of[index.hall_of_rack[rack.zone].zone] for rack in racks]
        halls = [
            _pointers([sum(1 for _ in hall.racks()) for hall in site.halls]),
            _pointers([len(hall.plants) for hall in site.halls]),
            [*(zone_of[hall.zone] for hall in site.halls), -1],
            [*(names.index(hall.zone) for hall in site.halls), -1],
        ]
        return Layout(
            np.array(
                [
                    _pointers(sizes),
                    _pointers(list(map(len, above))),
                    [*hall_of, -1],
                    [*(self.type_of[rack.node_type] for rack in racks), -1],
                ],
                np.int64,
            ),
            np.array(halls, np.int64),
            np.repeat(np.arange(len(racks)), sizes),
            np.array([zone for zones in above for zone in zones], np.int64),
            np.array([kind.gpus for kind in self.types], np.int64),
            np.array([kind.liquid_fraction for kind in self.types], np.float64),
            np.array([[h.losses.fixed_w, h.losses.linear, h.losses.quadratic_per_w] for h in site.halls], np.float64),
        )

    @cached_property
    def idle_rack_nw(self) -> Ints:
        """Power of every rack while no job runs, in nW."""
        return np.array(
            [len(r.nodes) * to_nw(self.site.node_types[r.node_type].idle_power_w) for r in self.site.racks()]
        )

    @cached_property
    def draws(self) -> DrawTables:
        """Planning figures and physics of every class, type and mode."""
        shape = len(self.classes), len(self.types), self.modes
        plan, draw = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        speed, plan_speed = np.ones(shape), np.ones(shape)
        for c, name in enumerate(self.classes):
            known, one = self.site.job_classes.get(name), Job("any", 1, 1.0, job_class=name)
            for t, kind in enumerate(self.types):
                for m, mode in enumerate(kind.modes):
                    real = draw_of(self.site, one, kind, mode)
                    plan[c, t, m] = self.added_nw(t, gpu_power_w(kind, mode, known))
                    draw[c, t, m] = to_nw(real.gpu_power_w - kind.idle_gpu_power_w)
                    speed[c, t, m], plan_speed[c, t, m] = real.speed, gpu_speed(mode, known)
        return DrawTables(plan, draw, speed, plan_speed)

    def added_nw(self, number: int, gpu_w: float) -> int:
        """Return what a busy GPU of a planning figure adds to an idle node of a type, in nW."""
        return max(0, to_nw(gpu_w - self.types[number].idle_gpu_power_w))

    def limits_nw(self, budgets: Mapping[str, float]) -> Ints:
        """Return the budget of every zone in nW, with a tolerance of a uW."""
        limits = [budgets.get(zone) for zone in self.zones]
        return np.array([NO_LIMIT_NW if w is None else to_nw(w + 1e-6) for w in limits], np.int64)

    @cached_property
    def plant_of(self) -> Mapping[str, int]:
        """The number of a plant by HALL/PLANT."""
        names = [f"{hall.zone}/{plant.name}" for hall in self.site.halls for plant in hall.plants]
        return {name: number for number, name in enumerate(names)}

    @cached_property
    def first_plant(self) -> Mapping[str, int]:
        """The number of the first plant of a hall."""
        pointers = _pointers([len(hall.plants) for hall in self.site.halls]).tolist()
        return {hall.zone: pointers[number] for number, hall in enumerate(self.site.halls)}

    def nodes_below(self, zone: str) -> tuple[int, ...]:
        """Return the numbers of the nodes below a zone, in order."""
        above = self.index.zones_above
        return tuple(self.node_of[name] for name, rack in self.index.rack_of.items() if zone in above(rack.zone))

    def plants(self, weather: Weather, relief: Floats, units_out: Mapping[int, int]) -> PlantCurves:
        """Return the curves of all plants in this weather; of some, by their number, units are out of use."""
        return plant_curves([plant for hall in self.site.halls for plant in hall.plants], weather, relief, units_out)


def _pointers(sizes: Sequence[int]) -> Ints:
    return np.concatenate(([0], np.cumsum(np.array(sizes, np.int64)))).astype(np.int64)
