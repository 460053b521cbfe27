"""What one store does best at given prices, by dynamic programming over its content on a grid: fast, and near enough.

It guides the search for prices, hundreds of times; the exact optimum at the final prices is the linear program's.
Losses over time are left out here.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from powerhall_optimizer.problem.arrays import Ints
from powerhall_optimizer.storage.model import COST_SCALE, SCALE, StorageModel, StorageUnit

__all__ = ["Grid", "added_w", "best_power", "compile_best_response", "grid_of"]

Floats = npt.NDArray[np.float64]
_STEPS = 4
"""Steps of the content that a slot at full discharge makes."""
_MOST_LEVELS = 600


@dataclass(frozen=True, slots=True)
class Grid:
    """A store on a grid: levels of `step_j` from `low_j`, how many a slot may rise or fall, and what the end costs."""

    store: StorageUnit
    levels: int
    step_j: float
    start: int
    up: int
    down: int
    up_w: float
    down_w: float
    end: Floats


def grid_of(store: StorageUnit, model: StorageModel) -> Grid:
    """Return the grid of a store."""
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
    """Return the store's best power per slot in W at these prices, and what that is worth in value units."""
    store = grid.store
    gain = -store.discharge_cost / COST_SCALE
    load = store.charge_cost / COST_SCALE + np.zeros(len(gain))
    for effect in store.effects:
        gain = gain + price[effect.resource] * effect.gain / SCALE
        load = load + price[effect.resource] * effect.load / SCALE
    moves = np.zeros(len(gain), np.int64)
    worth = _program(grid.levels, grid.start, grid.up, grid.down, gain * grid.down_w, load * grid.up_w, grid.end, moves)
    return np.where(moves > 0, -moves * grid.up_w, -moves * grid.down_w), float(worth)


def added_w(store: StorageUnit, power_w: Floats, resources: int) -> Floats:
    """Return what a power adds to the capacity of every resource and slot, not rounded."""
    total = np.zeros((resources, len(power_w)))
    for effect in store.effects:
        total[effect.resource] += effect.gain / SCALE * np.maximum(power_w, 0.0)
        total[effect.resource] -= effect.load / SCALE * np.maximum(-power_w, 0.0)
    return total


def compile_best_response() -> None:
    """Compile the loop below, once per installation."""
    _program(2, 0, 1, 1, np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2, np.int64))


@njit(cache=True, nogil=True)
def _program(  # noqa: PLR0917 - numba takes plain arguments
    levels: int, start: int, up: int, down: int, gain: Floats, load: Floats, end: Floats, moves: Ints
) -> float:
    slots = len(gain)
    best = end.copy()
    choice = np.zeros((slots, levels), np.int32)
    after = np.zeros(levels)
    for slot in range(slots - 1, -1, -1):
        for level in range(levels):
            most, move = best[level], 0
            for step in range(1, min(down, level) + 1):
                worth = best[level - step] + step * gain[slot]
                if worth > most:
                    most, move = worth, -step
            for step in range(1, min(up, levels - 1 - level) + 1):
                worth = best[level + step] - step * load[slot]
                if worth > most:
                    most, move = worth, step
            after[level] = most
            choice[slot, level] = move
        best[:] = after
    level = start
    for slot in range(slots):
        moves[slot] = choice[slot, level]
        level += moves[slot]
    return float(best[start])
