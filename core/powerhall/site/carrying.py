"""How much of a site its limits carry: nodes at full power and at each mode, and the limit that binds first.

A simple sum, for a person who sets a site up: every zone has the same share of its nodes busy and the rest idle, no
job, no storage, no event. The optimizer plans with the same limits and much more.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from powerhall.physics.cooling import hall_load, media
from powerhall.physics.weather import Weather
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, NodeType, Rack, Site

__all__ = ["FULL", "LimitShare", "carried", "load_cases"]

FULL = "full power"
_STEPS = 40


@dataclass(frozen=True, slots=True)
class LimitShare:
    """A limit with the load at which all of its nodes are busy in a case, and the share of them that it carries."""

    name: str
    limit_w: float
    load_w: float
    nodes: int
    share: float

    @property
    def nodes_carried(self) -> int:
        """Nodes that may be busy at once."""
        return int(self.share * self.nodes + 1e-9)


def load_cases(site: Site) -> list[str]:
    """Return the cases: full power, then the modes from the fastest on, named as their node types name them."""
    most = max((len(kind.modes) for kind in site.node_types.values()), default=0)
    return [FULL, *(_case_name(site, number) for number in range(most))]


def _case_name(site: Site, number: int) -> str:
    names = (kind.modes[min(number, len(kind.modes) - 1)].name for kind in site.node_types.values())
    return "/".join(dict.fromkeys(names))


def carried(site: Site, case: str, weather: Weather) -> list[LimitShare]:
    """Return every constant limit of the site in one case and weather, the one that binds first at the head."""
    busy_w = _busy_power(site, case)
    found = [*_zones(site, busy_w), *_cooling(site, busy_w, weather), *_meter(site, busy_w, weather)]
    return sorted(found, key=lambda entry: entry.share)


def _busy_power(site: Site, case: str) -> dict[str, float]:
    """Return the power of a busy node by node type."""
    number = load_cases(site).index(case) - 1
    if number < 0:
        return {name: kind.max_power_w for name, kind in site.node_types.items()}
    modes = {name: kind.modes[min(number, len(kind.modes) - 1)] for name, kind in site.node_types.items()}
    return {name: max(kind.idle_power_w, modes[name].gpu_power_w * kind.gpus) for name, kind in site.node_types.items()}


def _it_w(kind: NodeType, busy_w: float, share: float) -> float:
    return kind.idle_power_w + share * (busy_w - kind.idle_power_w)


def _rack_w(site: Site, racks: Sequence[Rack], busy_w: dict[str, float], share: float) -> float:
    index = SiteIndex.of(site)
    return sum(len(rack.nodes) * _it_w(index.rack_type(rack), busy_w[rack.node_type], share) for rack in racks)


def _zones(site: Site, busy_w: dict[str, float]) -> Iterator[LimitShare]:
    index = SiteIndex.of(site)
    for zone, limit_w in index.limits_w.items():
        racks = index.racks_under(zone)
        if limit_w is None or zone == site.name or not racks:
            continue
        yield _share(f"{zone} power", limit_w, _nodes(racks), partial(_rack_w, site, racks, busy_w))


def _split(site: Site, hall: Hall, busy_w: dict[str, float], share: float) -> tuple[float, float]:
    """Return the IT power of a hall in W that goes to liquid and to air."""
    liquid_w = all_w = 0.0
    for rack in hall.racks():
        kind = site.node_types[rack.node_type]
        it_w = len(rack.nodes) * _it_w(kind, busy_w[rack.node_type], share)
        liquid_w, all_w = liquid_w + kind.liquid_fraction * it_w, all_w + it_w
    return liquid_w, all_w - liquid_w


def _cooling(site: Site, busy_w: dict[str, float], weather: Weather) -> Iterator[LimitShare]:
    for hall in site.halls:
        for medium in media(hall):
            capacity_w = hall_load(hall, 0.0, 0.0, weather).capacity_w[medium]

            def heat_w(share: float, hall: Hall = hall, medium: str = medium) -> float:
                return hall_load(hall, *_split(site, hall, busy_w, share), weather).heat_w[medium]

            name = f"{hall.zone} cooling" if medium == "all" else f"{hall.zone} cooling ({medium})"
            yield _share(name, capacity_w, _nodes(tuple(hall.racks())), heat_w)


def _meter(site: Site, busy_w: dict[str, float], weather: Weather) -> Iterator[LimitShare]:
    if site.power_limit_w is None:
        return

    def meter_w(share: float) -> float:
        return sum(hall_load(h, *_split(site, h, busy_w, share), weather).facility_power_w for h in site.halls)

    yield _share(f"{site.name} at the meter", site.power_limit_w, _nodes(tuple(site.racks())), meter_w)


def _nodes(racks: Sequence[Rack]) -> int:
    return sum(len(rack.nodes) for rack in racks)


def _share(name: str, limit_w: float, nodes: int, load_w: Callable[[float], float]) -> LimitShare:
    """Find the largest share of busy nodes within a limit by bisection: the load never falls as the share grows."""
    full_w = load_w(1.0)
    low, high = 0.0, 1.0
    if full_w <= limit_w + 1e-6:
        low = 1.0
    elif load_w(0.0) > limit_w:
        high = 0.0
    for _ in range(_STEPS if low < high else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if load_w(middle) <= limit_w else (low, middle)
    return LimitShare(name, limit_w, full_w, nodes, low)
