"""Who gets which cap, and until when: power that is left in every budget at every instant of the leases.

A node's exposure at an instant is the highest cap that it may hold then. Exposures only fall with time, because every
lease under way began before now; budgets only fall too (see `Budget`). So the sum of exposures needs a look only now,
at every fall of a budget, and, where a budget is exceeded already, whenever a lease under way runs out.

Invariant: no cap raises a sum of exposures above its budget at any instant until the cap's lease has run out. A cap
that a node may hold at an instant anyway raises nothing there.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from powerhall_optimizer.leases.budget import Budget

__all__ = ["Allocation", "Exposure", "Granted"]

SHORTEST_S = 60.0
"""A fall nearer than this counts at once: a lease that ends within seconds is worth nothing to a job."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A cap in W and the moment at which it must have run out, on any clock."""

    cap_w: int
    until_s: float


@dataclass(frozen=True, slots=True)
class Exposure:
    """What nodes may hold: leases that were granted, as (cap, end on any clock), and what is assumed beyond them.

    `assumed` has a cap and its end for nodes of which it is not known what they hold. `strangers` are leases of nodes
    that the plan does not list: they count for the whole site.
    """

    safe_w: Mapping[str, int]
    held: Mapping[str, Sequence[tuple[int, float]]]
    assumed: Mapping[str, tuple[int, float]]
    strangers: Sequence[tuple[int, float]] = ()

    def known_w(self, node: str, time_s: float) -> int:
        """Return the highest cap that this ledger granted to the node for that time; at least its safe cap."""
        return max([self.safe_w[node], *(cap for cap, end_s in self.held.get(node, ()) if end_s > time_s)])

    def worst_w(self, node: str, time_s: float) -> int:
        """Return the highest cap that the node may hold then, whoever granted it."""
        cap_w, end_s = self.assumed.get(node, (0, 0.0))
        return max(self.known_w(node, time_s), cap_w if end_s > time_s else 0)


class Allocation:
    """Power left per budget and instant while caps are given out."""

    def __init__(
        self, budgets: Sequence[Budget], exposure: Exposure, asking: Iterable[str], now_s: float, until_s: float
    ) -> None:
        """`asking` are the nodes that caps are given to: they obey the new cap once it has arrived."""
        self.budgets, self.exposure, self.until_s = budgets, exposure, until_s
        self.asking = frozenset(asking)
        falls = {fall.time_s for budget in budgets for fall in budget.falls if now_s < fall.time_s < until_s}
        self._look_at(sorted({now_s, *falls}))
        self._is_over = any(min(left) < 0 for left in self._left)
        if self._is_over:  # caps over budget end at instants of their own
            ends = {end for leases in exposure.held.values() for _, end in leases if now_s < end < until_s}
            ends |= {end for _, end in exposure.assumed.values() if now_s < end < until_s}
            self._look_at(sorted({now_s, *falls, *ends}))
        self._obeyed = self._after_delivery() if self._is_over else []
        self._first = sum(time_s < now_s + SHORTEST_S for time_s in self.times)

    def _look_at(self, times: list[float]) -> None:
        self.times = times
        exposure = self.exposure
        self._known = {node: [exposure.known_w(node, t) for t in times] for node in exposure.safe_w}
        self._worst = self._known
        if exposure.assumed:
            self._worst = {node: [exposure.worst_w(node, t) for t in times] for node in exposure.safe_w}
        self._worst = {node: list(row) for node, row in self._worst.items()}
        self._zones: dict[str, list[tuple[int, float]]] = {}
        self._left: list[list[float]] = []
        for number, budget in enumerate(self.budgets):
            used = [0.0] * len(times)
            for node, weight in budget.shares():
                if weight > 0:
                    self._zones.setdefault(node, []).append((number, weight))
                    used = [sum_w + weight * cap for sum_w, cap in zip(used, self._worst[node], strict=True)]
            self._left.append(
                [budget.at_w(t) - u - self._strange_w(budget, t) for t, u in zip(times, used, strict=True)]
            )

    def _strange_w(self, budget: Budget, time_s: float) -> float:
        """Return what leases of nodes that the plan does not list may draw from the budget of the whole site."""
        if not self.exposure.strangers or len(budget.nodes) < len(self.exposure.safe_w):
            return 0.0
        steepest = max(budget.weights, default=1.0)
        return steepest * sum(cap for cap, end_s in self.exposure.strangers if end_s > time_s)

    def _after_delivery(self) -> list[list[float]]:
        """Return what is left once the asking nodes obey: they hold their safe caps until they get one here."""
        left = [list(row) for row in self._left]
        for node in self.asking:
            safe_w = self.exposure.safe_w[node]
            for number, weight in self._zones.get(node, ()):
                row = left[number]
                for k, cap in enumerate(self._worst[node]):
                    row[k] += weight * (cap - safe_w)
        return left

    def _most_w(self, node: str, k: int) -> int:
        """Return the highest cap that the node may get at one instant."""
        zones = self._zones.get(node, ())
        room = min((self._left[i][k] / weight for i, weight in zones), default=math.inf)
        known_w = self._known[node][k]
        most = max(known_w, self._worst[node][k] + room)
        if self._is_over:
            safe_w = self.exposure.safe_w[node]
            obeyed = min((self._obeyed[i][k] / weight for i, weight in zones), default=math.inf)
            most = max(safe_w, min(most, safe_w + obeyed))
        return math.floor(min(most, 1e12) + 1e-9)

    def offer(self, node: str, want_w: int, steps: Sequence[int] = ()) -> Granted | None:
        """Return the highest cap up to `want_w` that the node may get now, and until when; nothing is taken yet.

        With `steps` (allowed caps, the highest first) the cap is one of them, or None where none fits.
        """
        most = [self._most_w(node, k) for k in range(len(self.times))]
        cap_w = min(want_w, *most[: self._first])
        if steps:
            fitting = [step for step in steps if step <= cap_w]
            if not fitting:
                return None
            cap_w = max(fitting)
        end_s = next((t for t, m in zip(self.times, most, strict=True) if m < cap_w), self.until_s)
        return Granted(cap_w, end_s)

    def take(self, node: str, granted: Granted, sign: int = 1) -> None:
        """Count a cap against every budget above the node; with `sign` -1 give it back."""
        safe_w, zones = self.exposure.safe_w[node], self._zones.get(node, ())
        for k, time_s in enumerate(self.times):
            if time_s >= granted.until_s:
                break
            raised = max(0, granted.cap_w - self._worst[node][k])
            obeys = max(0, granted.cap_w - safe_w)
            for number, weight in zones:
                self._left[number][k] -= sign * weight * raised
                if self._is_over:
                    self._obeyed[number][k] -= sign * weight * obeys
