"""Events of readings that are not believed: once, when a node's or a meter's reading becomes implausible."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from powerhall.site.topology import Hall, NodeType, Rack
from powerhall.store.line_protocol import Point
from powerhall_optimizer.rollup.node_power import node_power
from powerhall_optimizer.rollup.readings import BUCKET_S, HallReadings, NodeReading
from powerhall_optimizer.rollup.zone_sum import Fields, RollupContext, ZoneSum, meter_w, rack_sum

__all__ = ["doubt_points"]


def doubt_points(context: RollupContext, hall: Hall, readings: HallReadings, times_s: Iterable[int]) -> Iterator[Point]:
    """Yield an event `sensor_suspect` for each bucket in which a node's or a meter's reading stops being believed."""
    zones = [(hall.zone, tuple(hall.racks())), *((rack.zone, (rack,)) for rack in hall.racks())]
    metered = [(zone, racks) for zone, racks in zones if zone in context.site.meters]
    site = context.site.name
    for time_s in times_s:
        for rack in hall.racks():
            kind = context.site.node_types[rack.node_type]
            for node in rack.nodes:
                buckets = readings.nodes.get(node, {})
                now = _node_doubt(buckets.get(time_s), kind)
                if now and not _node_doubt(buckets.get(time_s - BUCKET_S), kind):
                    tags = {"site": site, "hall": hall.zone, "rack": rack.zone, "node": node}
                    yield _suspect(tags, f"{node}: {now}", time_s)
        for zone, racks in metered:
            sums = _Metered(context, zone, racks, readings)
            now = sums.doubt(time_s)
            if now and not sums.doubt(time_s - BUCKET_S):
                tags = {"site": site, "hall": hall.zone} | ({"rack": zone} if zone != hall.zone else {})
                yield _suspect(tags, f"{zone}: {now}", time_s)


def _node_doubt(reading: NodeReading | None, kind: NodeType) -> str:
    """Return what a node shows that is not believed; "" where there is nothing."""
    return "" if reading is None else "; ".join(node_power(reading, kind).doubts)


@dataclass(frozen=True, slots=True)
class _Metered:
    """A zone that has meters of its own."""

    context: RollupContext
    zone: str
    racks: tuple[Rack, ...]
    readings: HallReadings

    def doubt(self, time_s: int) -> str:
        """Return why its meters are not believed; "" where they are."""
        shown_w = meter_w(self.context, self.zone, self.readings, time_s)
        if shown_w is None:
            return ""
        total = ZoneSum()
        for rack in self.racks:
            total.add(rack_sum(self.context, rack, self.readings, time_s))
        if total.may_show(shown_w):
            return ""
        known_w = total.known_w
        bound = f"its nodes draw {known_w:,.0f} W" if shown_w < known_w else "its nodes cannot draw that"
        return f"{', '.join(self.context.site.meters[self.zone])}: {shown_w:,.0f} W, while {bound}"


def _suspect(tags: dict[str, str], detail: str, time_s: int) -> Point:
    fields: Fields = {"code": 0.0, "detail": f"{detail}: not believed", "severity": 1.0}
    return Point("event", {**tags, "kind": "sensor_suspect"}, fields, time_s * 1000)
