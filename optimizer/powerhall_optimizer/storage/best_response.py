"""The best dispatch of one storage unit at given prices, by dynamic programming over its content on a grid.

It approximates: content moves in whole steps of the grid, and losses over time are left out. That is enough to guide
the search for prices, which asks hundreds of times; the linear program finds the exact optimum at the final prices.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from powerhall_optimizer.jit import kernel
from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.storage.model import COST_SCALE, SCALE, StorageModel, StorageUnit

__all__ = ["Grid", "added_w", "best_power", "compile_best_response", "grid_of"]

Floats = npt.NDArray[np.float64]
_STEPS = 4
"""Grid steps that the content falls by in one slot at full discharge, where the number of levels allows it."""
_MOST_LEVELS = 600


@dataclass(frozen=True, slots=True)
class Grid:
    """A storage unit on a grid of content levels, `step_j` apart from its lowest content on."""

    store: StorageUnit
    levels: int
    step_j: float
    start: int  # level at the start of the horizon
    up: int  # steps that a slot may rise by
    down: int  # steps that a slot may fall by
    up_w: float  # charging power of one step per slot, losses included
    down_w: float  # discharging power of one step per slot
    end: Floats  # [levels] value of ending at each level: minus the cost of the missing content, -inf where not allowed


def grid_of(store: StorageUnit, model: StorageModel) -> Grid:
    """Return the grid of a storage unit."""
    low_j = min(store.low_j)
    room_j = max(1.0, float(store.high_j - low_j))
    stored = store.storage.efficiency * model.slot_s
    moves = store.discharge_w * model.slot_s, store.charge_w * stored
    step_j = max(room_j / _MOST_LEVELS, min(moves[0] / _STEPS, moves[1], room_j))
    levels = int(room_j / step_j) + 1
    start = min(levels - 1, max(0, round((store.start_j - low_j) / step_j)))
    held = low_j + step_j * np.arange(levels)
    per_j = store.short_cost / COST_SCALE
    end = -per_j * np.maximum(0.0, store.end_j - held)
    end[held < store.low_j[-1] - step_j] = -math.inf
    up, down = int(moves[1] / step_j + 1e-9), int(moves[0] / step_j + 1e-9)
    return Grid(store, levels, step_j, start, up, down, step_j / stored, step_j / model.slot_s, end)


def best_power(grid: Grid, price: Floats) -> tuple[Floats, float]:
    """Return the unit's best power per slot in W at these prices, and its value in value units."""
    store = grid.store
    gain = -store.discharge_cost / COST_SCALE
    load = store.charge_cost / COST_SCALE + np.zeros(len(gain))
    for effect in store.effects:
        gain = gain + price[effect.resource] * effect.gain / SCALE
        load = load + price[effect.resource] * effect.load / SCALE
    levels = _Levels(grid.start, grid.up, grid.down, grid.end)
    moves = np.zeros(len(gain), np.int64)
    value = _best_path(levels, gain * grid.down_w, load * grid.up_w, moves)
    return np.where(moves > 0, -moves * grid.up_w, -moves * grid.down_w), float(value)


def added_w(store: StorageUnit, power_w: Floats, resources: int) -> Floats:
    """Return the power added to the capacity of every resource and slot, not rounded."""
    total = np.zeros((resources, len(power_w)))
    for effect in store.effects:
        total[effect.resource] += effect.gain / SCALE * np.maximum(power_w, 0.0)
        total[effect.resource] -= effect.load / SCALE * np.maximum(-power_w, 0.0)
    return total


def compile_best_response() -> None:
    """Compile the kernel below, once per installation."""
    _best_path(_Levels(0, 1, 1, np.zeros(2)), np.zeros(2), np.zeros(2), np.zeros(2, np.int64))


class _Levels(NamedTuple):
    """The fields of `Grid` that the kernel reads."""

    start: int
    up: int
    down: int
    end: Floats  # [levels]


@kernel
def _best_path(levels: _Levels, gain: Floats, load: Floats, moves: Ints) -> float:
    """Write the best move of every slot, in steps, into `moves` [T]; return the value of the whole path.

    `gain` and `load` [T] are the value that one step down earns and one step up costs in each slot. Backward
    induction: the value from each level on is known for the end, then slot by slot towards the start; the moves are
    then read forward from the level at the start. Of equal moves staying comes first, then falling, and short moves
    before long ones.
    """
    slots, count, up, down = len(gain), len(levels.end), levels.up, levels.down
    later = levels.end.copy()  # value from each level on, after the slot
    now = np.zeros(count)  # the same before the slot
    choice = np.zeros((slots, count), np.int32)
    for slot in range(slots - 1, -1, -1):
        for level in range(count):
            best, move = later[level], 0
            for step in range(1, min(down, level) + 1):
                value = later[level - step] + step * gain[slot]
                if value > best:
                    best, move = value, -step
            for step in range(1, min(up, count - 1 - level) + 1):
                value = later[level + step] - step * load[slot]
                if value > best:
                    best, move = value, step
            now[level] = best
            choice[slot, level] = move
        later[:] = now
    level = levels.start
    for slot in range(slots):
        moves[slot] = choice[slot, level]
        level += moves[slot]
    return float(later[levels.start])
