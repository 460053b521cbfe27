"""Sums of a zone in one bucket, by how its power is known; and what its own meters show."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from powerhall.physics.weather import Weather
from powerhall.site.index import SiteIndex
from powerhall.site.topology import NodeType, Rack, Site
from powerhall_optimizer.rollup.node_power import NodePower, node_power, unknown_node
from powerhall_optimizer.rollup.readings import BUCKET_S, HallReadings, NodeReading, node_most_w

__all__ = ["Fields", "RollupContext", "ZoneSum", "meter_w", "rack_sum"]

_SHORT = 0.9
"""Means of a meter and of its nodes may differ by this part while the load rises."""
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
class ZoneSum:
    """Totals of a zone in one bucket; `liquid_w` is the part of its power that liquid cooling takes.

    Its nodes are known to draw `known_w` at least; above `most_w` its meters show garbage.
    """

    measured_w: float = 0.0
    estimated_w: float = 0.0
    assumed_w: float = 0.0
    known_w: float = 0.0
    most_w: float = 0.0
    liquid_w: float = 0.0
    temp_max_c: float | None = None
    meter_w: float | None = None
    dropped: int = 0
    gpus: int = 0
    busy: int = 0
    throttled: int = 0
    lost: int = 0
    nodes: int = 0
    stale: int = 0

    @property
    def it_w(self) -> float:
        """IT power in W."""
        return self.measured_w + self.estimated_w + self.assumed_w

    def add(self, other: "ZoneSum") -> None:
        """Add a zone within this one."""
        if other.temp_max_c is not None:
            self.temp_max_c = max(other.temp_max_c, self.temp_max_c or other.temp_max_c)
        for name in ("measured_w", "estimated_w", "assumed_w", "known_w", "most_w", "liquid_w"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("dropped", "gpus", "busy", "throttled", "lost", "nodes", "stale"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def add_node(self, power: NodePower, kind: NodeType) -> None:
        """Add a node of this zone."""
        self.measured_w += power.measured_w
        self.estimated_w += power.estimated_w
        self.assumed_w += power.assumed_w
        self.known_w += power.known_w
        self.most_w += node_most_w(kind)
        self.liquid_w += power.power_w * kind.liquid_fraction
        self.dropped += len(power.doubts)

    def may_show(self, meter_w: float) -> bool:
        """Return whether the zone's own meters can show this: what its nodes are known to draw, or can draw at all."""
        return _SHORT * self.known_w <= meter_w <= self.most_w

    def metered(self, meter_w: float | None) -> None:
        """Take in the zone's own meters: what they show beyond the nodes is counted, what they cannot show dropped."""
        if meter_w is None:
            return
        if not self.may_show(meter_w):
            self.dropped += 1
            return
        self.meter_w, it_w = meter_w, self.it_w
        if meter_w > it_w:
            self.measured_w += meter_w - it_w
            self.liquid_w *= meter_w / it_w if it_w > 0 else 1.0

    def fields(self) -> Fields:
        """Return the fields of the zone's roll-up, but for limits and cooling."""
        fields: Fields = {
            "it_power_w": self.it_w,
            "it_measured_w": self.measured_w,
            "it_estimated_w": self.estimated_w,
            "it_assumed_w": self.assumed_w,
        }
        if self.temp_max_c is not None:
            fields["temp_max_c"] = self.temp_max_c
        if self.meter_w is not None:
            fields["meter_power_w"] = self.meter_w
        counts = {"gpus": self.gpus, "gpus_busy": self.busy, "gpus_throttled": self.throttled, "gpus_lost": self.lost}
        counts |= {"nodes": self.nodes, "nodes_stale": self.stale, "readings_dropped": self.dropped}
        return fields | {name: float(count) for name, count in counts.items()}


def meter_w(context: RollupContext, zone: str, readings: HallReadings, time_s: int) -> float | None:
    """Return the sum of a zone's meters; None where it has none, or one of them shows nothing fresh."""
    devices, total_w = context.site.meters.get(zone, ()), 0.0
    for device in devices:
        found = (readings.meters.get(device, {}).get(at_s) for at_s in _fresh(time_s, context.stale_after_s))
        power_w = next((power_w for power_w in found if power_w is not None), None)
        if power_w is None:
            return None
        total_w += power_w
    return total_w if devices else None


def rack_sum(context: RollupContext, rack: Rack, readings: HallReadings, time_s: int) -> ZoneSum:
    """Return the sum of a rack's nodes in a bucket, each by its newest fresh reading, else at its maximum."""
    kind = context.site.node_types[rack.node_type]
    total = ZoneSum(gpus=len(rack.nodes) * kind.gpus, nodes=len(rack.nodes))
    for node in rack.nodes:
        buckets = readings.nodes.get(node, {})
        reading, newest = _last(buckets, time_s, context.stale_after_s), buckets.get(time_s)
        if newest is not None and newest is not reading:
            total.dropped += len(newest.garbage)
        if reading is None:
            total.stale += 1
            total.add_node(unknown_node(kind), kind)
            continue
        total.add_node(node_power(reading, kind), kind)
        total.busy += reading.busy
        total.throttled += reading.throttled
        total.lost += reading.lost
        if reading.temp_max_c is not None:
            total.temp_max_c = max(reading.temp_max_c, total.temp_max_c or reading.temp_max_c)
    return total


def _last(buckets: Mapping[int, NodeReading], time_s: int, stale_after_s: int) -> NodeReading | None:
    for at_s in _fresh(time_s, stale_after_s):
        reading = buckets.get(at_s)
        if reading is not None and (reading.gpu_power_w or reading.power_w is not None):
            return reading
    return None


def _fresh(time_s: int, stale_after_s: int) -> range:
    """Return the buckets whose readings count at a time, the newest first."""
    return range(time_s, time_s - stale_after_s - 1, -BUCKET_S)
