"""A budget over the time of the leases to be granted: its watts now, its known falls, and the nodes that it feeds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat

__all__ = ["Budget", "Fall"]


@dataclass(frozen=True, slots=True)
class Fall:
    """From `time_s` on, the budget is `budget_w` and no longer what it was before."""

    time_s: float
    budget_w: float


@dataclass(frozen=True, slots=True)
class Budget:
    """Limit on the draw of a zone while the leases to be granted can be in force, and the nodes in it.

    `weights` (one per node, 1 where empty) are the watts of this budget per watt of the node: the share that
    goes to liquid, or a watt at the meter per watt of IT. `falls` come in order of time, each lower than the one
    before: a budget that rises again is of no use to a lease that began below it.
    """

    zone: str
    budget_w: float
    nodes: tuple[str, ...]
    weights: tuple[float, ...] = ()
    falls: tuple[Fall, ...] = ()

    def shares(self) -> Iterator[tuple[str, float]]:
        """Yield each node with its weight."""
        return zip(self.nodes, self.weights or repeat(1.0), strict=bool(self.weights))

    def load_w(self, caps_w: Mapping[str, int]) -> float:
        """Return the part of the budget that these node caps use, in W."""
        return sum(caps_w[node] * weight for node, weight in self.shares())

    def at_w(self, time_s: float) -> float:
        """Return the budget at a time, in W."""
        return min([self.budget_w, *(fall.budget_w for fall in self.falls if fall.time_s <= time_s)])
