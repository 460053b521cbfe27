"""Policies that start jobs from the queue in an order, in power modes that a rule names."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from powerhall_twin.engine.queue_passes import QueueRule, run_queue
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.engine.site_arrays import Ints

__all__ = ["QueuePolicy", "fastest_rule", "rule_of"]


def rule_of(state: SimState, mode: Ints) -> QueueRule:
    """Return the rule that starts jobs of every class and node type [C, T] in these modes, by planning figures."""
    draws = state.world.tables
    plan_nw = np.take_along_axis(draws.plan_nw, mode[:, :, None], axis=2)[:, :, 0]
    speed = np.take_along_axis(draws.plan_speed, mode[:, :, None], axis=2)[:, :, 0]
    return QueueRule(mode, plan_nw, speed.min(axis=1))


def fastest_rule(state: SimState) -> QueueRule:
    """Return the rule that starts every job at full power."""
    return rule_of(state, np.zeros((len(state.arrays.classes), len(state.arrays.types)), np.int64))


@dataclass(slots=True)
class QueuePolicy:
    """Stops runs where a budget does not hold, else starts jobs in one of the orders of `queue_passes`."""

    order: int
    make_rule: Callable[[SimState], QueueRule] = fastest_rule
    rule: QueueRule | None = field(default=None)

    def begin(self, state: SimState) -> None:
        """Choose modes."""
        self.rule = self.make_rule(state)

    def planned_stores(self, _now_s: float, /) -> tuple[None, float]:
        """No plan: stores cover what is too much."""
        return None, math.inf

    def decide(self, state: SimState) -> None:
        """Stop what is too much, then start from the queue."""
        assert self.rule is not None, "begin comes first"
        run_queue(state.world, self.rule, state.memory, self.order, state.now_s)
