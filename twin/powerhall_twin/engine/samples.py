"""What a report shows over time, taken at every tick: queue, busy GPUs, heat and capacity per medium; and the water."""

from dataclasses import dataclass, field

from powerhall.physics.cooling import media
from powerhall.physics.plants.kinds import kind_of
from powerhall_twin.engine.columns import CAPACITY, GPUS, HALL_PLANTS, N_WAITING, SERVES
from powerhall_twin.engine.meter import MEDIA, Gauges
from powerhall_twin.engine.sim_state import SimState

__all__ = ["Samples", "take_sample"]


@dataclass(slots=True)
class Samples:
    """One value per tick: the end of the tick, jobs that wait and GPUs that are busy then; means over it in W.

    `heat_w` and `capacity_w` are by hall and medium, such as `hall1 (liquid)`, or the hall alone for all heat.
    """

    times_s: list[float] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    busy_gpus: list[int] = field(default_factory=list)
    heat_w: dict[str, list[float]] = field(default_factory=dict)
    capacity_w: dict[str, list[float]] = field(default_factory=dict)


def take_sample(samples: Samples, state: SimState, gauges: Gauges, since_s: float) -> float:
    """Add a sample of the stretch since the last one, in which the weather was that of now; return its water in l."""
    dt_s = state.now_s - since_s
    if dt_s <= 0.0:
        return 0.0
    jobs = state.world.jobs
    samples.times_s.append(state.now_s)
    samples.waiting.append(int(jobs.sizes[N_WAITING]))
    samples.busy_gpus.append(int(jobs.ints[GPUS, state.running].sum()))
    water_l = 0.0
    for number, hall in enumerate(state.arrays.site.halls):
        for medium in media(hall):
            heat_w = float(gauges.heat_j[3 * number + MEDIA.index(medium)]) / dt_s
            capacity_w = _capacity_w(state, number, medium)
            name = hall.zone if medium == "all" else f"{hall.zone} ({medium})"
            samples.heat_w.setdefault(name, []).append(heat_w)
            samples.capacity_w.setdefault(name, []).append(capacity_w)
            water_l += _water_l_per_h(state, number, medium, heat_w) * dt_s / 3600.0
    gauges.heat_j[:] = 0.0
    return water_l


def _capacity_w(state: SimState, hall: int, medium: str) -> float:
    world = state.physical or state.world
    served = slice(world.layout.halls[HALL_PLANTS, hall], world.layout.halls[HALL_PLANTS, hall + 1])
    numbers = world.plants.numbers[served]
    return float(numbers[numbers[:, SERVES] == MEDIA.index(medium), CAPACITY].sum())


def _water_l_per_h(state: SimState, hall: int, medium: str, heat_w: float) -> float:
    """Return the water of the plants of a medium, which share the heat by their capacity."""
    served = [plant for plant in state.arrays.site.halls[hall].plants if plant.serves == medium]
    capacities = [kind_of(plant).capacity_w(plant, state.weather) for plant in served]
    total_w = sum(capacities)
    return sum(
        kind_of(plant).water_l_per_h(plant, heat_w * capacity_w / total_w, state.weather)
        for plant, capacity_w in zip(served, capacities, strict=True)
        if total_w > 0.0
    )
