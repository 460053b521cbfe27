"""Cooling plants in a plan, checked from its snapshot alone: the units that run carry the heat at the least power."""

from collections.abc import Iterator
from dataclasses import dataclass

from powerhall.physics.cooling import plant_capacity_w
from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.physics.plants.staging import units_power_w
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Plan, PlantPlan
from powerhall.site.topology import Hall
from powerhall_optimizer.verify.loads import Loads, outdoor_air
from powerhall_optimizer.verify.times import time_text

__all__ = ["plant_checks"]

Broken = tuple[str, str]
"""Where, text."""
_WATT = 1.0
_LITRE = 1.0
_PART = 1e-6


def plant_checks(plan: Plan, loads: Loads) -> Iterator[Broken]:
    """Yield what is wrong with the plan's plants, the first slot of each; it lists all of the site, or none.

    None may be listed only where no plant has several units.
    """
    due = [(hall, plant) for hall in plan.snapshot.site.halls for plant in hall.plants]
    if not plan.plants and not any(plant.units > 1 for _, plant in due):
        return
    if [(entry.hall, entry.plant) for entry in plan.plants] != [(hall.zone, plant.name) for hall, plant in due]:
        yield "plants", "are not the plants of the site, in its order"
        return
    for entry, (hall, plant) in zip(plan.plants, due, strict=True):
        rows = entry.units, entry.heat_w, entry.power_w, entry.water_l
        if any(len(row) != plan.snapshot.slots for row in rows):
            yield f"{hall.zone}/{plant.name}", "has not one value per slot"
            continue
        wrong = next(_wrong_slots(plan, loads, entry, hall, plant), None)
        if wrong is not None:
            yield f"{hall.zone}/{plant.name}", wrong


def _wrong_slots(plan: Plan, loads: Loads, entry: PlantPlan, hall: Hall, plant: Plant) -> Iterator[str]:
    s = plan.snapshot
    heat_w = loads.halls[hall.zone].heat_w[plant.serves]
    beside = [other for other in hall.plants if other.serves == plant.serves]
    for slot, air in enumerate(outdoor_air(s)):
        own_w = plant_capacity_w(plant, air)
        all_w = sum(plant_capacity_w(other, air) for other in beside)
        taken_w = float(heat_w[slot]) * (own_w / all_w if all_w > 0 else 1.0 / len(beside))
        case = _Slot(plant, air, taken_w, own_w, s.slot_s / 3600.0)
        at = time_text(s.start_s + slot * s.slot_s)
        given = entry.units[slot], entry.heat_w[slot], entry.power_w[slot], entry.water_l[slot]
        yield from (f"{text} at {at}" for text in case.wrong(*given))


@dataclass(frozen=True, slots=True)
class _Slot:
    """A plant in one slot: its heat and capacity in W."""

    plant: Plant
    air: Weather
    heat_w: float
    capacity_w: float
    hours: float

    def wrong(self, units: int, heat_w: int, power_w: int, water_l: int) -> Iterator[str]:
        """Yield what does not fit."""
        kind, plant = kind_of(self.plant), self.plant
        if not 1 <= units <= plant.units:
            yield f"runs {units} of {plant.units} units"
            return
        if units < plant.units and self.heat_w > units / plant.units * self.capacity_w * (1.0 + _PART) + _WATT:
            yield f"{units} units cannot take {self.heat_w:.0f} W"
        if abs(heat_w - self.heat_w) > _WATT:
            yield f"takes {self.heat_w:.0f} W, not {heat_w} W"
        due_w = units_power_w(kind, plant, units, self.heat_w, self.air)
        if abs(power_w - due_w) > _WATT + _PART * due_w:
            yield f"draws {due_w:.0f} W with {units} units, not {power_w} W"
        least_w = kind.power_w(plant, self.heat_w, self.air)
        if due_w > least_w + _WATT + _PART * least_w:
            yield f"runs {units} units for {due_w:.0f} W; other numbers draw {least_w:.0f} W"
        due_l = kind.water_l_per_h(plant, self.heat_w, self.air) * self.hours
        if abs(water_l - due_l) > _LITRE + 1e-3 * due_l:
            yield f"uses {due_l:.0f} l of water, not {water_l} l"
