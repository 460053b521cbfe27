"""A hall's power at the meter as tables from above: losses over IT power, plants over the heat they take."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import media, medium_load, plant_capacity_w, plant_power_w
from powerhall.physics.plants.kinds import kind_of
from powerhall.physics.plants.plant import Plant
from powerhall.physics.weather import Weather
from powerhall.site.topology import Hall
from powerhall_optimizer.physics.hall_lines import medium_capacity_w
from powerhall_optimizer.physics.site_conditions import SiteConditions

__all__ = ["PARTS", "HallTables", "hall_tables", "media_slopes", "meter_slope", "points_needed"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PARTS = 256
"""Tables are in W over this."""
_POINTS = 64
"""Points of a table, at least; at most twice as many."""


@dataclass(frozen=True, slots=True)
class HallTables:
    """One hall: loads when idle, and up to three tables [3, W, N] with points `2**shift` W apart.

    The tables are losses over IT power, plants of the whole hall or of liquid, and plants of air, over their heat.
    """

    idle: tuple[int, int, int]
    media: int
    shift: tuple[int, int, int]
    table: Ints
    steepest: float


def hall_tables(conditions: SiteConditions, hall: Hall, weather: tuple[Weather, ...], points: int) -> HallTables:
    """Return the tables of a hall for different kinds of weather, `points` long."""
    base = conditions.hall_base(hall)
    jobs_w = sum(conditions.most_added_w(rack) for rack in hall.racks())
    split = media(hall)
    stored = {m: _stored_w(conditions, hall, m) for m in split}
    loss_w = hall.losses.power_w(base.it_w)
    idle_heat = {"all": base.it_w + loss_w, "liquid": base.liquid_w, "air": base.air_w + loss_w}
    tops = [base.it_w + jobs_w]
    most_w = {m: float(medium_capacity_w(conditions, hall, m).max()) + stored[m] for m in split}
    tops += [max(most_w[medium], idle_heat[medium]) for medium in split]
    shifts = [_shift(top_w) for top_w in tops] + [0] * (3 - len(tops))
    table = np.zeros((3, len(weather), points), np.int64)
    loads = np.arange(points, dtype=float) * 2.0 ** shifts[0]
    table[0] = np.ceil(_losses(hall, loads) * PARTS + 1e-6).astype(np.int64)
    for number, medium in enumerate(split, 1):
        plants = [plant for plant in hall.plants if plant.serves == medium]
        heat = np.arange(points, dtype=float) * 2.0 ** shifts[number]
        for row, moment in enumerate(weather):
            table[number, row] = _plants(plants, heat, moment)
    steps = [np.diff(table[part], axis=1).max(initial=0) / PARTS / 2.0**shift for part, shift in enumerate(shifts)]
    steepest = (1.0 + steps[0]) * (1.0 + (steps[1] if len(split) == 1 else max(steps[1:])))
    return HallTables(
        (math.ceil(base.it_w), math.ceil(base.liquid_w), math.ceil(base.air_w)),
        len(split),
        (shifts[0], shifts[1], shifts[2]),
        table,
        steepest,
    )


def points_needed() -> int:
    """Return the length of every table: twice the least number of points, and some to read beyond the top."""
    return 2 * _POINTS + 4


def _shift(top_w: float) -> int:
    return max(0, math.floor(math.log2(max(1.0, top_w) / _POINTS)))


def _losses(hall: Hall, it_w: Floats) -> Floats:
    losses = hall.losses
    return losses.fixed_w + (losses.linear + losses.quadratic_per_w * it_w) * it_w


def _plants(plants: list[Plant], heat_w: Floats, moment: Weather) -> Ints:
    """Return the power of the plants at each heat, rounded up; plants share the heat in proportion to capacity."""
    capacities = [plant_capacity_w(plant, moment) for plant in plants]
    total = sum(capacities)
    power_w = np.zeros(len(heat_w))
    for plant, own in zip(plants, capacities, strict=True):
        share = own / total if total > 0 else 1.0 / len(plants)
        power_w += _plant(plant, heat_w * share, own, moment)
    if total <= 0:
        power_w[0] = power_w[1]
    elif not all(kind_of(plant).convex for plant in plants):
        power_w[:-1] = power_w[1:]
    return np.maximum.accumulate(np.ceil(power_w * PARTS + 1e-6).astype(np.int64))


def _plant(plant: Plant, heat_w: Floats, capacity_w: float, moment: Weather) -> Floats:
    """Return a plant's power at each heat: at once where its formulas take arrays, else one by one."""
    if capacity_w > 0:
        try:
            found: object = kind_of(plant).power_w(plant, heat_w, moment)  # type: ignore[arg-type]
            if isinstance(found, np.ndarray) and found.shape == heat_w.shape:
                return np.array(found, np.float64)
        except (TypeError, ValueError):
            pass
    return np.array([plant_power_w(plant, heat, moment) for heat in heat_w.tolist()])


def _stored_w(conditions: SiteConditions, hall: Hall, medium: str) -> float:
    stores = [s for s in conditions.site.storages if s.kind != "battery"]
    return sum(s.discharge_w for s in stores if (s.zone, s.medium) == (hall.zone, medium))


def media_slopes(conditions: SiteConditions, hall: Hall) -> dict[str, float]:
    """Return per medium the W that its plants draw per W of heat: the mean up to capacity, over the slots."""
    found: dict[str, float] = {}
    for medium in media(hall):
        known: dict[Weather, float] = {}
        for moment in dict.fromkeys(conditions.weather):
            capacity_w, none_w = medium_load(hall, medium, 0.0, moment)
            full_w = medium_load(hall, medium, capacity_w, moment)[1] if capacity_w > 0 else none_w
            known[moment] = (full_w - none_w) / capacity_w if capacity_w > 0 else 0.0
        found[medium] = float(np.mean([known[moment] for moment in conditions.weather]))
    return found


def meter_slope(conditions: SiteConditions, hall: Hall, share: float, slopes: dict[str, float]) -> float:
    """Return W at the meter per W of IT of which `share` goes to liquid: IT, losses, and the plants' mean.

    It values energy: it depends on the hall and the weather and on no limit, so that plans are comparable.
    """
    losses, idle_w = hall.losses, conditions.hall_base(hall).it_w
    jobs_w = sum(conditions.most_added_w(rack) for rack in hall.racks())
    loss = losses.linear + losses.quadratic_per_w * (idle_w + (idle_w + jobs_w))
    if "all" in slopes:
        return (1.0 + loss) * (1.0 + slopes["all"])
    return 1.0 + loss + share * slopes.get("liquid", 0.0) + (1.0 - share + loss) * slopes.get("air", 0.0)
