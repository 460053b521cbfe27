"""Batteries, tanks and loops of the running site: what they deliver and take up, and what they hold.

A policy with a plan has its stores follow the plan. Without one a store covers what is too much: a battery planned
power above the budget of its zone, a tank or a loop heat above the capacity of the plants of its medium. It is filled
again from what the budget, or the plants, leave after the policy has started its jobs. Either is bounded by what the
store holds and by its powers; a round trip loses `1 - efficiency` when it charges, as in `powerhall.site.storage`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from powerhall.site.storage import Storage
from powerhall_twin.engine.columns import CAPACITY, HALL_PLANTS, POOL_NW, SERVES
from powerhall_twin.engine.meter import MEDIA, Gauges
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.engine.site_arrays import NW

__all__ = ["Stores"]

_LEAST_S = 60.0
"""A store delivers only what it could for so long, so that it does not end within the next second."""
_SHARES = (1.0, 0.5, 0.2, 0.05, 0.0)
"""Parts of its power that a tank tries to take up."""


@dataclass(slots=True)
class Stores:
    """What each store holds in J, and what it delivers now in W (negative: takes up)."""

    state: SimState
    gauges: Gauges
    units: tuple[Storage, ...]
    held_j: list[float]
    power_w: list[float]
    delivered_j: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, state: SimState, gauges: Gauges) -> "Stores":
        """Return the site's stores as they are at the start."""
        units = state.arrays.site.storages
        delivered = {unit.name: 0.0 for unit in units}
        return cls(state, gauges, units, [u.start_j for u in units], [0.0] * len(units), delivered)

    def contents(self) -> dict[str, float]:
        """Return what each store holds, in J."""
        return {unit.name: held_j for unit, held_j in zip(self.units, self.held_j, strict=True)}

    def deliver(self, planned: Mapping[str, float] | None, until_s: float) -> None:
        """Before the policy decides: set what stores deliver, by a plan in W until a moment or by what is too much."""
        spare_w: dict[tuple[str, str], float] = {}
        for number, unit in enumerate(self.units):
            if planned is not None:
                power_w = self._within(number, planned.get(unit.name, 0.0), max(1.0, until_s - self.state.now_s))
            else:
                limit = unit.zone, unit.medium
                spare_w.setdefault(limit, self._spare_w(unit))
                power_w = self._within(number, max(0.0, -spare_w[limit]), _LEAST_S)
                spare_w[limit] += power_w
            self.power_w[number] = power_w
        self._put()

    def refill(self) -> None:
        """After the policy has decided, without a plan: fill stores that deliver nothing from what is left.

        Tanks and loops come first, as their heat costs power of the plants, and take less where that does not fit.
        """
        by_kind = sorted(range(len(self.units)), key=lambda number: (self.units[number].kind == "battery", number))
        charged_w = 0.0
        for number in by_kind:
            unit = self.units[number]
            if self.power_w[number] != 0.0:
                continue
            spare_w = self._spare_w(unit) + self._delivered_w(unit)
            if unit.kind == "battery":
                spare_w = min(spare_w, self.state.rise_left_w - charged_w)
            power_w = self._within(number, -max(0.0, spare_w), _LEAST_S)
            for share in _SHARES if power_w < 0.0 else ():
                self.power_w[number] = share * power_w
                self._put()
                if unit.kind == "battery" or self._holds():
                    break
            charged_w -= self.power_w[number] if unit.kind == "battery" else 0.0

    def _delivered_w(self, unit: Storage) -> float:
        """Return what the stores of the same limit deliver; what they take up counts as negative."""
        same = (unit.zone, unit.medium)
        return sum(w for one, w in zip(self.units, self.power_w, strict=True) if (one.zone, one.medium) == same)

    def _holds(self) -> bool:
        limits = self.state.world.limits
        return bool(self.state.planned_w <= min(limits.site_w[0], limits.rise_w[0]) + 1e-6)

    @property
    def next_s(self) -> float:
        """When the first store is empty or full, infinite where none is in use."""
        ends = [math.inf]
        for unit, held_j, power_w in zip(self.units, self.held_j, self.power_w, strict=True):
            if power_w > 0.0:
                ends.append((held_j - unit.min_j) / power_w)
            elif power_w < 0.0:
                ends.append((unit.capacity_j - held_j) / (unit.efficiency * -power_w))
        return self.state.now_s + max(1.0, min(ends))

    def advance(self, dt_s: float) -> None:
        """Count a stretch at the powers of now."""
        for number, unit in enumerate(self.units):
            power_w = self.power_w[number]
            change_w = -power_w if power_w >= 0.0 else unit.efficiency * -power_w
            kept_j = self.held_j[number] * (1.0 - unit.loss_per_h) ** (dt_s / 3600.0)
            self.held_j[number] = min(unit.capacity_j, max(0.0, kept_j + change_w * dt_s))
            self.delivered_j[unit.name] += max(0.0, power_w) * dt_s

    def _within(self, number: int, power_w: float, for_s: float) -> float:
        unit, held_j = self.units[number], self.held_j[number]
        most_w = min(unit.discharge_w, max(0.0, held_j - unit.min_j) / for_s)
        room_w = max(0.0, unit.capacity_j - held_j) / (unit.efficiency * for_s)
        return min(most_w, max(-min(unit.charge_w, room_w), power_w))

    def _spare_w(self, unit: Storage) -> float:
        """Return what the store's limit leaves of planned power or heat, negative where it is exceeded."""
        state, arrays = self.state, self.state.arrays
        if unit.kind == "battery":
            budget_w = state.budgets.get(unit.zone, math.inf)
            is_site = unit.zone == arrays.site.name
            used_w = state.planned_w if is_site else state.world.now.zone_nw[arrays.zones.index(unit.zone)] / 1e9
            return float(budget_w - used_w)
        hall, medium = arrays.hall_of[unit.zone], MEDIA.index(unit.medium)
        world, plants = state.world, state.world.plants
        served = slice(world.layout.halls[HALL_PLANTS, hall], world.layout.halls[HALL_PLANTS, hall + 1])
        numbers = plants.numbers[served]
        capacity_w = numbers[numbers[:, SERVES] == medium, CAPACITY].sum()
        return float(capacity_w - self._heat_w(hall)[medium])

    def _heat_w(self, hall: int) -> tuple[float, float, float]:
        """Return a hall's planned heat to all plants, to those of liquid and to those of air."""
        layout, pool_nw = self.state.world.layout, self.state.world.now.pools[POOL_NW]
        types = len(layout.type_gpus)
        it_w = pool_nw[hall * types : (hall + 1) * types] / NW
        fixed_w, linear, quadratic = layout.losses[hall]
        loss_w = fixed_w + (linear + quadratic * it_w.sum()) * it_w.sum()
        liquid_w = float((it_w * layout.type_liquid).sum())
        return float(it_w.sum() + loss_w), liquid_w, float(it_w.sum() - liquid_w + loss_w)

    def _place(self, unit: Storage) -> int:
        arrays = self.state.arrays
        return 0 if unit.zone == arrays.site.name else 1 + arrays.zones.index(unit.zone)

    def _put(self) -> None:
        """Put the powers of now into the arrays of the engine, and the limits that they leave to policies."""
        delivered, relief = self.gauges.delivered_w, self.state.world.plants.relief
        before = delivered.copy(), relief.copy()
        delivered[:], relief[:] = 0.0, 0.0
        for unit, power_w in zip(self.units, self.power_w, strict=True):
            if unit.kind == "battery":
                delivered[self._place(unit)] += power_w
            else:
                relief[3 * self.state.arrays.hall_of[unit.zone] + MEDIA.index(unit.medium)] += power_w
        if not (np.array_equal(before[0], delivered) and np.array_equal(before[1], relief)):
            self.state.put_limits()
