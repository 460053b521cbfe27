"""Roll-up points of racks, halls and the site, computed from readings: no store, no clock."""

from collections.abc import Iterable, Iterator

from powerhall.physics.cooling import hall_load, needs_weather, plant_loads
from powerhall.physics.weather import Weather
from powerhall.site.topology import Hall
from powerhall.store import Row
from powerhall.store.line_protocol import Point
from powerhall_optimizer.rollup.readings import HallReadings
from powerhall_optimizer.rollup.zone_sum import Fields, RollupContext, ZoneSum, meter_w, rack_sum

__all__ = ["hall_points", "site_points"]

_SUMS = (
    "it_power_w",
    "it_measured_w",
    "it_estimated_w",
    "it_assumed_w",
    "readings_dropped",
    "cooling_power_w",
    "loss_power_w",
    "facility_power_w",
    "heat_w",
    "cooling_capacity_w",
    "heat_liquid_w",
    "cooling_capacity_liquid_w",
    "heat_air_w",
    "cooling_capacity_air_w",
    "water_l_per_h",
    "gpus",
    "gpus_busy",
    "gpus_throttled",
    "gpus_lost",
    "nodes",
    "nodes_stale",
)
_WORST = (("temp_max_c", max), ("cooling_load_percent", max), ("cooling_headroom_w", min))
"""Fields of the site that are those of its worst hall."""


def hall_points(
    context: RollupContext, hall: Hall, readings: HallReadings, times_s: Iterable[int], *, unheard: bool = False
) -> Iterator[Point]:
    """Yield the roll-ups of a hall's racks and of the hall for each bucket.

    A hall of which nothing was read gives none, but where it was `unheard` because its store is silent: then its nodes
    count at their worst.
    """
    for time_s in times_s:
        total = ZoneSum()
        points = []
        for rack in hall.racks():
            part = rack_sum(context, rack, readings, time_s)
            part.metered(meter_w(context, rack.zone, readings, time_s))
            total.add(part)
            tags = {"site": context.site.name, "hall": hall.zone, "rack": rack.zone}
            fields = part.fields() | _limits(context, rack.zone, part.it_w, time_s)
            points.append(Point("rack_10s", tags, fields, time_s * 1000))
        if total.stale == total.nodes and not unheard:
            continue  # a hall without any telemetry has no data; it is not counted at full load
        total.metered(meter_w(context, hall.zone, readings, time_s))
        yield from points
        fields = total.fields() | _cooling(context, hall, total, time_s)
        fields |= _limits(context, hall.zone, total.it_w, time_s)
        yield Point("hall_10s", {"site": context.site.name, "hall": hall.zone}, fields, time_s * 1000)


def _limits(context: RollupContext, zone: str, power_w: float, time_s: int) -> Fields:
    fields: Fields = {}
    budget_w, planned_w = context.budget_w(zone, time_s), context.planned_w(zone, time_s)
    if budget_w is not None:
        fields |= {"budget_w": budget_w, "headroom_w": budget_w - power_w}
    if planned_w is not None:
        fields["planned_w"] = planned_w
    return fields


def _cooling(context: RollupContext, hall: Hall, total: ZoneSum, time_s: int) -> Fields:
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
        "water_l_per_h": sum(plant.water_l_per_h for plant in plant_loads(hall, load.heat_w, weather)),
        **load.cooling_fields(),
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
        for name, worst in _WORST:
            found = [value for row in rows if (value := row.number(name)) is not None]
            if found:
                fields[name] = worst(found)
        meter_w = fields.get("facility_power_w", fields["it_power_w"])
        assert isinstance(meter_w, float)
        fields |= _limits(context, context.site.name, meter_w, time_s)
        yield Point("site_10s", {"site": context.site.name}, fields, time_s * 1000)
