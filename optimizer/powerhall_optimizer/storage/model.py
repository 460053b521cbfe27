"""Storage units beside the integer problem: their limits, their effect on capacities, and their cost.

With `d` W delivered and `c` W taken up by unit k in slot t, the capacity of resource r is

    cap_rt + floor(sum over k of (gain_krt * d_kt - load_krt * c_kt) / SCALE)

and the value of the plan is lower by

    (sum(discharge_cost * d + charge_cost * c) + short_cost * max(0, end - e_T)) / COST_SCALE

Gains are rounded down and loads up: a dispatch within these limits is within the true curves:

* a battery's power changes from slot to slot by no more than its share of the site's ramp limits;
* a battery adds to the IT power that its feed and the feeds above carry, and to the power at the meter, one to one;
* a tank or loop takes its power off the heat of its hall's plants; at the meter it saves at least the slope of
  their power at no heat, and costs at most the slope at full capacity.

The bound uses slopes of the other side (`verify.storage_terms`): no dispatch gains more than by them.

No solver is imported here. The checker has its own code for the same model (`powerhall_optimizer.verify`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from powerhall.physics.cooling import has_convex_plants, medium_load
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Snapshot, StoragePlan
from powerhall.site.storage import Storage, keep_factor, stored_after, trajectory
from powerhall.site.topology import Hall
from powerhall_optimizer.physics.hall_lines import medium_capacity_w
from powerhall_optimizer.physics.linearize import it_for_air_heat_w, it_for_heat_w, loss_slope
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.problem.resources import Resource, ResourceKind
from powerhall_optimizer.problem.site_problem import BuiltProblem, energy_usd_per_mwh

__all__ = [
    "COST_SCALE",
    "SCALE",
    "Ceiling",
    "Dispatch",
    "Effect",
    "StorageModel",
    "StorageUnit",
    "build_storage_model",
    "named_dispatch",
    "plant_slopes",
    "with_dispatch",
]

Floats = npt.NDArray[np.float64]
_CHORDS = 64
SCALE = 1 << 20
"""Gains and loads are multiples of 1/SCALE W per W."""
COST_SCALE = 1 << 30
"""Costs are multiples of 1/COST_SCALE value units per W and slot, or per J."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Effect on a resource's capacity per slot: gain of a W delivered, load of a W taken up, over SCALE."""

    resource: int
    gain: Ints
    load: Ints


@dataclass(frozen=True, slots=True)
class StorageUnit:
    """A storage unit in whole numbers: W, J; costs over COST_SCALE. `low_j` has one value per slot and one for the end.

    An idle unit is always within its limits: `low_j` is at most its content then.
    """

    storage: Storage
    start_j: int
    low_j: tuple[int, ...]
    high_j: int
    charge_w: int
    discharge_w: int
    charge_cost: Ints
    discharge_cost: Ints
    short_cost: int
    effects: tuple[Effect, ...]
    rise_w: float = math.inf
    """By how much its power may rise from slot to slot, and fall: a battery's share of the site's ramp limits."""
    fall_w: float = math.inf

    @property
    def end_j(self) -> int:
        """Content wanted at the end; each missing J costs `short_cost`."""
        return min(int(self.storage.end_j), self.high_j)


Dispatch = tuple[tuple[int, ...], ...]
"""Power per unit and slot in whole W: delivered, or taken up where negative."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that some storage units may deliver together per slot: no export, no cooling beyond the heat.

    `shares[k]` counts a W that unit k delivers, and a W that it takes up.
    """

    shares: dict[int, tuple[Floats, Floats]]
    most_w: Floats


@dataclass(frozen=True, slots=True)
class StorageModel:
    """All storage units of a snapshot over its slots."""

    slots: int
    slot_s: int
    units: tuple[StorageUnit, ...]

    @property
    def rounding_w(self) -> int:
        """Capacity that rounding all powers to whole W may cost."""
        return 2 * len(self.units)

    def idle(self) -> Dispatch:
        """Return the dispatch in which all units are idle."""
        return ((0,) * self.slots,) * len(self.units)

    def added(self, dispatch: Sequence[Sequence[int]], resources: int) -> Ints:
        """Return the change of the capacity of every resource and slot by a dispatch."""
        total = np.zeros((resources, self.slots), np.int64)
        for store, watts in zip(self.units, dispatch, strict=True):
            power = np.array(watts, np.int64)
            for effect in store.effects:
                total[effect.resource] += effect.gain * np.maximum(power, 0) - effect.load * np.maximum(-power, 0)
        result: Ints = total // SCALE
        return result

    def cost(self, dispatch: Sequence[Sequence[int]]) -> Fraction:
        """Return the cost of a dispatch in value units, exactly."""
        total = Fraction(0)
        for store, watts in zip(self.units, dispatch, strict=True):
            for slot, power in enumerate(watts):
                costs = store.discharge_cost if power > 0 else store.charge_cost
                total += abs(power) * int(costs[slot])
            end_j = trajectory(store.storage, store.start_j, watts, self.slot_s)[-1]
            total += store.short_cost * max(Fraction(0), store.end_j - end_j)
        return total / COST_SCALE

    def meets_end_content(self, dispatch: Sequence[Sequence[int]]) -> bool:
        """Whether every unit holds its least content at the end."""
        return all(
            trajectory(store.storage, store.start_j, watts, self.slot_s)[-1] >= store.low_j[-1]
            for store, watts in zip(self.units, dispatch, strict=True)
        )

    def plans(self, dispatch: Sequence[Sequence[int]]) -> tuple[StoragePlan, ...]:
        """Return a dispatch as a plan carries it."""
        found: list[StoragePlan] = []
        for store, watts in zip(self.units, dispatch, strict=True):
            held = trajectory(store.storage, store.start_j, watts, self.slot_s)
            loop = store.storage.kind == "loop"
            temps = tuple(round(store.storage.temp_c(float(j)), 4) for j in held) if loop else ()
            found.append(StoragePlan(store.storage.name, tuple(watts), tuple(int(j) for j in held), temps))
        return tuple(found)

    def in_whole_watts(self, power_w: Sequence[Floats]) -> Dispatch:
        """Return the nearest dispatch in whole W that keeps every unit within its limits, slot after slot."""
        return tuple(self._whole(s, w) for s, w in zip(self.units, power_w, strict=True))

    def _whole(self, store: StorageUnit, power_w: Floats) -> tuple[int, ...]:
        keep = keep_factor(store.storage, self.slot_s)
        per_w = stored_after(store.storage, keep, Fraction(0), -1, self.slot_s)
        held = Fraction(store.start_j)
        found: list[int] = []
        for slot, wanted in enumerate(power_w.tolist()):
            idle_j = keep * held
            if wanted >= 0:
                most = (idle_j - store.low_j[slot + 1]) // self.slot_s
                power = min(int(wanted + 1e-6), store.discharge_w, max(0, int(most)))
            else:
                most = (store.high_j - idle_j) // per_w
                power = -min(int(1.0 - 1e-6 - wanted), store.charge_w, max(0, int(most)))
            held = stored_after(store.storage, keep, held, power, self.slot_s)
            found.append(power)
        return self._topped(store, found, per_w)

    def _topped(self, store: StorageUnit, powers: list[int], per_w: Fraction) -> tuple[int, ...]:
        """Return powers that end with the least content: rounding may have cost the unit some J."""
        held = trajectory(store.storage, store.start_j, powers, self.slot_s)
        lacks = store.low_j[-1] - held[-1]
        fullest = Fraction(0)
        for slot in range(self.slots - 1, -1, -1) if lacks > 0 else ():
            fullest = max(fullest, held[slot + 1])
            more = math.ceil(lacks / per_w) + 1
            if powers[slot] - more >= -store.charge_w and fullest + more * self.slot_s <= store.high_j:
                powers[slot] -= more
                break
        return tuple(powers)


def with_dispatch(built: BuiltProblem, model: StorageModel, dispatch: Dispatch) -> BuiltProblem:
    """Return the problem with the capacities of a dispatch, less a margin for rounding a later one."""
    capacity = built.problem.capacity + model.added(dispatch, built.problem.resources)
    capacity[sorted({effect.resource for store in model.units for effect in store.effects})] -= model.rounding_w
    return replace(built, problem=replace(built.problem, capacity=np.maximum(capacity, 0)))


def build_storage_model(
    snapshot: Snapshot, built: BuiltProblem, conditions: SiteConditions | None = None
) -> StorageModel:
    """Return the model of a snapshot's storage; without storage the model is empty."""
    units: tuple[StorageUnit, ...] = ()
    if snapshot.site.storages:
        units = tuple(_UnitBuilder(snapshot, built, conditions or SiteConditions(snapshot)).units())
    return StorageModel(snapshot.slots, snapshot.slot_s, units)


class _UnitBuilder:
    def __init__(self, snapshot: Snapshot, built: BuiltProblem, conditions: SiteConditions) -> None:
        self.snapshot = snapshot
        self.conditions = conditions
        self.unit_usd = built.unit_usd
        self.number = {resource: number for number, resource in enumerate(built.problem.resource_keys)}
        self.has_meter = snapshot.site.name in conditions.budgets_w
        self.per_w = energy_usd_per_mwh(snapshot) / 3.6e9 * snapshot.slot_s / built.unit_usd

    def units(self) -> list[StorageUnit]:
        return [self._unit(storage) for storage in self.snapshot.site.storages]

    def _unit(self, storage: Storage) -> StorageUnit:
        effects, energy = self._battery(storage) if storage.kind == "battery" else self._cooling(storage)
        high_j = int(storage.capacity_j)
        start_j = min(max(int(self.snapshot.stored_j.get(storage.name, storage.start_j)), 0), high_j)
        wear = storage.cycle_usd_per_mwh / 3.6e9 * self.snapshot.slot_s / self.unit_usd
        per_j = storage.refill_usd_per_mwh / 3.6e9 / self.unit_usd
        heat_wear = 0.0 if storage.kind == "battery" else wear
        return StorageUnit(
            storage,
            start_j,
            self._low_j(storage, start_j),
            high_j,
            int(storage.charge_w),
            int(storage.discharge_w),
            _scaled(self.per_w * energy + heat_wear, COST_SCALE),
            _scaled(wear - self.per_w * energy, COST_SCALE),
            round(per_j * COST_SCALE),
            effects,
            self._step_w(storage, self.snapshot.site.ramp_down_w_per_s),
            self._step_w(storage, self.snapshot.site.ramp_up_w_per_s),
        )

    def _step_w(self, storage: Storage, ramp_w_per_s: float | None) -> float:
        """Batteries share a ramp limit in proportion to their discharge power; a few W are left for rounding."""
        if ramp_w_per_s is None or storage.kind != "battery":
            return math.inf
        every = sum(s.discharge_w for s in self.snapshot.site.storages if s.kind == "battery")
        return max(0.0, ramp_w_per_s * self.snapshot.slot_s * storage.discharge_w / every - 4.0)

    def _low_j(self, storage: Storage, start_j: int) -> tuple[int, ...]:
        idle = trajectory(storage, start_j, (0,) * self.snapshot.slots, self.snapshot.slot_s)
        low = [min(int(storage.min_j), int(state)) for state in idle]
        low[-1] = min(int(storage.end_j), int(idle[-1]), int(storage.capacity_j))
        return tuple(low)

    def _battery(self, storage: Storage) -> tuple[tuple[Effect, ...], Floats]:
        one = np.ones(self.snapshot.slots)
        found = [
            self._effect(Resource(zone, ResourceKind.IT_POWER), one, one)
            for zone in self.conditions.index.feeds_above(storage.zone)
        ]
        if self.has_meter:
            found.append(self._effect(self._at_meter(), one, one))
        return tuple(found), one

    def _at_meter(self) -> Resource:
        return Resource(self.snapshot.site.name, ResourceKind.FACILITY_POWER)

    def _cooling(self, storage: Storage) -> tuple[tuple[Effect, ...], Floats]:
        hall = self.conditions.index.halls[storage.zone]
        slopes = plant_slopes(hall, storage.medium, self.conditions.weather)
        least, mean, most = (np.array(column) for column in zip(*slopes, strict=True))
        gain, load = self._heat(hall, storage)
        found = [self._effect(Resource(hall.zone, ResourceKind.HEAT, storage.medium), gain, load)]
        if self.has_meter:
            found.append(self._effect(self._at_meter(), least, most))
        return tuple(found), mean

    def _heat(self, hall: Hall, storage: Storage) -> tuple[Floats, Floats]:
        """Return the gain of the plants' resource per W of heat taken off them, and its load per W added."""
        one = np.ones(self.snapshot.slots)
        if storage.medium == "liquid":
            return one, one
        beside = (hall.zone, storage.medium)
        most_w = sum(s.discharge_w for s in self.snapshot.site.storages if (s.zone, s.medium) == beside)
        losses = hall.losses
        capacity = medium_capacity_w(self.conditions, hall, storage.medium) + most_w
        if storage.medium == "air":
            return self._air_gain(hall, capacity), one
        top = np.array([it_for_heat_w(losses, c) for c in capacity.tolist()])
        return one / (1.0 + losses.linear + 2.0 * losses.quadratic_per_w * top), one / (1.0 + losses.linear)

    def _air_gain(self, hall: Hall, capacity: Floats) -> Floats:
        """Return the least that a W of heat taken off the plants of air adds to what they carry by their curve."""
        base, losses = self.conditions.hall_base(hall), hall.losses
        room = capacity - base.air_w - losses.power_w(base.it_w)
        gain = np.ones(self.snapshot.slots)
        for kind in {rack.node_type for rack in hall.racks()}:
            share = 1.0 - self.snapshot.site.node_types[kind].liquid_fraction
            slope = share + loss_slope(losses, base.it_w, base.it_w)
            if slope > 0:
                top = np.array([it_for_air_heat_w(losses, share, base.it_w, w) for w in room.tolist()])
                gain = np.minimum(gain, slope / (slope + 2.0 * losses.quadratic_per_w * top))
        return gain

    def _effect(self, resource: Resource, gain: Floats, load: Floats) -> Effect:
        return Effect(
            self.number[resource], np.floor(gain * SCALE).astype(np.int64), np.ceil(load * SCALE).astype(np.int64)
        )


def _scaled(values: Floats, scale: int) -> Ints:
    result: Ints = np.rint(values * scale).astype(np.int64)
    return result


def plant_slopes(hall: Hall, medium: str, weather: Sequence[Weather]) -> list[tuple[float, float, float]]:
    """Return per slot the slopes of the plants' power over their heat: the least, the mean, the steepest; W per W.

    Where power is not convex it may stay level at any heat, and rise steeply: by no more than the steepest chord of a
    64th of the capacity, for changes of heat of at least as much.
    """
    known: dict[Weather, tuple[float, float, float]] = {}
    for moment in weather:
        if moment in known:
            continue
        capacity, none_w = medium_load(hall, medium, 0.0, moment)
        step = max(1e-3 * capacity, 1.0)
        full_w = medium_load(hall, medium, capacity, moment)[1]
        first = (medium_load(hall, medium, 1e-6 * step, moment)[1] - none_w) / (1e-6 * step)
        last = (medium_load(hall, medium, capacity + step, moment)[1] - full_w) / step
        mean = (full_w - none_w) / capacity if capacity > 0 else 0.0
        if capacity > 0 and not has_convex_plants(hall):
            first, last = 0.0, _steepest(hall, medium, capacity, moment)
        known[moment] = max(0.0, 0.999 * first), mean, last
    return [known[moment] for moment in weather]


def _steepest(hall: Hall, medium: str, capacity: float, moment: Weather) -> float:
    part = capacity / _CHORDS
    powers = [medium_load(hall, medium, part * number, moment)[1] for number in range(_CHORDS + 2)]
    return max((after - before) / part for before, after in zip(powers, powers[2:], strict=False))


def named_dispatch(model: StorageModel, dispatch: Mapping[str, Sequence[int]]) -> Dispatch:
    """Return the dispatch in the model's order; KeyError where a unit is missing, ValueError where slots are."""
    found = tuple(tuple(dispatch[store.storage.name]) for store in model.units)
    if any(len(watts) != model.slots for watts in found):
        raise ValueError("a storage unit needs one power per slot")
    return found
