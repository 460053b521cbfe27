"""The time that a plan spans."""

import math
from dataclasses import dataclass

__all__ = ["Horizon", "floor_slot"]


@dataclass(frozen=True, slots=True)
class Horizon:
    """When the plan begins, in seconds since the epoch, and how long its slots and it are in seconds."""

    start_s: int
    slot_s: int
    length_s: int

    @property
    def slots(self) -> int:
        """Number of slots."""
        return max(1, self.length_s // self.slot_s)


def floor_slot(time_s: float, slot_s: int) -> int:
    """Return the start of the slot that holds a time."""
    return math.floor(time_s / slot_s) * slot_s
