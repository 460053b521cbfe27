"""Roll-up points of racks, halls and the site, computed from readings: no store, no clock."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from powerhall.physics.cooling import hall_load, needs_weather
from powerhall.physics.weather import Weather
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Rack, Site
from powerhall.store import Row
from powerhall.store.line_protocol import Point
from powerhall_optimizer.rollup.readings import BUCKET_S, NodeReading, node_power_w

__all__ = ["RollupContext", "hall_points", "site_points"]

_SUMS = (
    "it_power_w",
    "cooling_power_w",
    "loss_power_w",
    "facility_power_w",
    "heat_w",
    "cooling_capacity_w",
    "gpus",
    "gpus_busy",
    "gpus_throttled",
    "gpus_lost",
    "nodes",
    "nodes_stale",
)
Fields = dict[str, float | str]


@dataclass(frozen=True, slots=True)
class RollupContext:
    """The site, weather and planned power by time, and the age after which a node counts at its maximum."""

    site: Site
    weather: Callable[[float], Weather | None]
    planned_w: Callable[[str, float], float | None]
    stale_after_s: int = 30

    def budget_w(self, zone: str, time_s: float) -> float | None:
        """Return the tightest power limit of a zone in force; None where it has none."""
        return SiteIndex.of(self.site).budget_at(zone, time_s)


@dataclass(slots=True)
class _Sum:
    """Totals of a rack in one bucket; `liquid_w` is the part of its power that liquid cooling takes."""

    it_w: float = 0.0
    liquid_w: float = 0.0
    temp_max_c: float | None = None
    gpus: int = 0
    busy: int = 0
    throttled: int = 0
    lost: int = 0
    nodes: int = 0
    stale: int = 0

    def add(self, other: "_Sum") -> None:
        self.it_w += other.it_w
        self.liquid_w += other.liquid_w
        if other.temp_max_c is not None:
            self.temp_max_c = max(other.temp_max_c, self.temp_max_c or other.temp_max_c)
        for name in ("gpus", "busy", "throttled", "lost", "nodes", "stale"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def fields(self) -> Fields:
        fields: Fields = {"it_power_w": self.it_w}
        if self.temp_max_c is not None:
            fields["temp_max_c"] = self.temp_max_c
        counts = {"gpus": self.gpus, "gpus_busy": self.busy, "gpus_throttled": self.throttled, "gpus_lost": self.lost}
        counts |= {"nodes": self.nodes, "nodes_stale": self.stale}
        return fields | {name: float(count) for name, count in counts.items()}


Readings = Mapping[str, Mapping[int, NodeReading]]


def hall_points(context: RollupContext, hall: Hall, readings: Readings, times_s: Iterable[int]) -> Iterator[Point]:
    """Yield the roll-ups of a hall's racks and of the hall for each bucket; a silent hall gives none."""
    for time_s in times_s:
        total = _Sum()
        points = []
        for rack in hall.racks():
            part = _rack(context, rack, readings, time_s)
            total.add(part)
            tags = {"site": context.site.name, "hall": hall.zone, "rack": rack.zone}
            fields = part.fields() | _limits(context, rack.zone, part.it_w, time_s)
            points.append(Point("rack_10s", tags, fields, time_s * 1000))
        if total.stale == total.nodes:
            continue  # a hall without any telemetry has no data; it is not counted at full load
        yield from points
        fields = total.fields() | _cooling(context, hall, total, time_s)
        fields |= _limits(context, hall.zone, total.it_w, time_s)
        yield Point("hall_10s", {"site": context.site.name, "hall": hall.zone}, fields, time_s * 1000)


def _rack(context: RollupContext, rack: Rack, readings: Readings, time_s: int) -> _Sum:
    kind = context.site.node_types[rack.node_type]
    total = _Sum(gpus=len(rack.nodes) * kind.gpus, nodes=len(rack.nodes))
    for node in rack.nodes:
        reading = _last(readings.get(node, {}), time_s, context.stale_after_s)
        if reading is None:
            total.stale += 1
            power_w = kind.max_power_w
        else:
            power_w = node_power_w(reading, kind)
            total.busy += reading.busy
            total.throttled += reading.throttled
            total.lost += reading.lost
            if reading.temp_max_c is not None:
                total.temp_max_c = max(reading.temp_max_c, total.temp_max_c or reading.temp_max_c)
        total.it_w += power_w
        total.liquid_w += power_w * kind.liquid_fraction
    return total


def _last(buckets: Mapping[int, NodeReading], time_s: int, stale_after_s: int) -> NodeReading | None:
    for at_s in range(time_s, time_s - stale_after_s - 1, -BUCKET_S):
        reading = buckets.get(at_s)
        if reading is not None and (reading.gpu_power_w or reading.power_w is not None):
            return reading
    return None


def _limits(context: RollupContext, zone: str, power_w: float, time_s: int) -> Fields:
    fields: Fields = {}
    budget_w, planned_w = context.budget_w(zone, time_s), context.planned_w(zone, time_s)
    if budget_w is not None:
        fields |= {"budget_w": budget_w, "headroom_w": budget_w - power_w}
    if planned_w is not None:
        fields["planned_w"] = planned_w
    return fields


def _cooling(context: RollupContext, hall: Hall, total: _Sum, time_s: int) -> Fields:
    """Return losses and, where the weather is known or does not matter, heat and power of the plants."""
    weather = context.weather(time_s)
    if weather is None:
        if needs_weather(hall):
            return {"loss_power_w": hall.losses.power_w(total.it_w)}
        weather = Weather(0.0, 0.0)
    load = hall_load(hall, total.liquid_w, total.it_w - total.liquid_w, weather)
    return {
        "loss_power_w": load.loss_power_w,
        "cooling_power_w": load.cooling_power_w,
        "facility_power_w": load.facility_power_w,
        "heat_w": sum(load.heat_w.values()),
        "cooling_capacity_w": sum(load.capacity_w.values()),
    }


def site_points(context: RollupContext, halls: Iterable[Row]) -> Iterator[Point]:
    """Yield the site's roll-up for each bucket that all halls have one of; `halls` are rows of hall_10s."""
    by_time: dict[int, list[Row]] = {}
    for row in halls:
        by_time.setdefault(int(row.time_s), []).append(row)
    names = {hall.zone for hall in context.site.halls}
    for time_s, rows in sorted(by_time.items()):
        if {row.tags["hall"] for row in rows} != names:
            continue
        fields: Fields = {}
        for name in _SUMS:
            values = [row.number(name) for row in rows]
            if all(value is not None for value in values):
                fields[name] = sum(value for value in values if value is not None)
        temps = [temp_c for row in rows if (temp_c := row.number("temp_max_c")) is not None]
        if temps:
            fields["temp_max_c"] = max(temps)
        meter_w = fields.get("facility_power_w", fields["it_power_w"])
        assert isinstance(meter_w, float)
        fields |= _limits(context, context.site.name, meter_w, time_s)
        yield Point("site_10s", {"site": context.site.name}, fields, time_s * 1000)
