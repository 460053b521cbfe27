"""What every cooling plant does in a plan: heat, power, units that run, and water, per slot."""

from collections.abc import Iterator

from powerhall.physics.cooling import PlantLoad, plant_loads
from powerhall.plan.plan import PlantPlan, Snapshot
from powerhall.site.topology import Hall
from powerhall_optimizer.physics.plan_loads import Loads, weather_of

__all__ = ["plant_plans"]


def plant_plans(snapshot: Snapshot, loads: Loads) -> tuple[PlantPlan, ...]:
    """Return an entry per plant, in the order of the site; plants share a hall's heat by their capacity."""
    return tuple(entry for hall in snapshot.site.halls if hall.plants for entry in _of_hall(snapshot, hall, loads))


def _of_hall(snapshot: Snapshot, hall: Hall, loads: Loads) -> Iterator[PlantPlan]:
    heat_w = loads.halls[hall.zone].heat_w
    known: dict[tuple[object, ...], list[PlantLoad]] = {}
    slots: list[list[PlantLoad]] = []
    for slot, weather in enumerate(weather_of(snapshot)):
        parts = {medium: float(watts[slot]) for medium, watts in heat_w.items()}
        key = weather, *parts.values()
        if key not in known:
            known[key] = plant_loads(hall, parts, weather)
        slots.append(known[key])
    for plant, row in zip(hall.plants, zip(*slots, strict=True), strict=True):
        yield PlantPlan(
            hall.zone,
            plant.name,
            tuple(load.units for load in row),
            tuple(round(load.heat_w) for load in row),
            tuple(round(load.power_w) for load in row),
            tuple(round(load.water_l_per_h * snapshot.slot_s / 3600.0) for load in row),
        )
