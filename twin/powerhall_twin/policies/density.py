"""Weight density: jobs with the most weight per W of planned power start first, at full power, all that fit.

It makes no reservations: a large job of low density may wait as long as others come.
"""

from dataclasses import dataclass

import numpy as np

from powerhall_twin.engine.columns import CLS, RANK
from powerhall_twin.engine.queue_passes import GREEDY_ORDER
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.policies.policy import PolicyKind
from powerhall_twin.policies.queue_policy import QueuePolicy

__all__ = ["DENSITY"]


@dataclass(slots=True)
class _Density(QueuePolicy):
    def begin(self, state: SimState) -> None:
        """Rank the jobs; equal ones stay in the order of submission."""
        QueuePolicy.begin(self, state)
        assert self.rule is not None
        power = self.rule.plan_nw.min(axis=1)[state.world.jobs.ints[CLS]]
        density = np.array([job.weight for job in state.jobs]) / np.maximum(1, power)
        state.world.jobs.ints[RANK, np.argsort(-density, kind="stable")] = np.arange(len(state.jobs))


DENSITY = PolicyKind("density", "most weight per W first", lambda _: _Density(GREEDY_ORDER))
