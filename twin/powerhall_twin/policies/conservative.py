"""Conservative backfilling at full power: a job passes others only where it delays no earlier job's reservation."""

from dataclasses import dataclass

import numpy as np

from powerhall_twin.engine.queue_passes import EASY_ORDER
from powerhall_twin.engine.reservations import MOST_STEPS, Profile, run_reservations
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.policies.policy import PolicyKind
from powerhall_twin.policies.queue_policy import QueuePolicy

__all__ = ["CONSERVATIVE"]


@dataclass(slots=True)
class _Conservative(QueuePolicy):
    profile: Profile | None = None

    def begin(self, state: SimState) -> None:
        """Choose modes, and make room for the profile."""
        QueuePolicy.begin(self, state)
        halls = len(state.arrays.site.halls)
        pools = halls * len(state.arrays.types)
        ints = np.zeros((MOST_STEPS, pools), np.int64)
        self.profile = Profile(
            np.zeros(MOST_STEPS),
            ints,
            ints.copy(),
            np.zeros((MOST_STEPS, halls)),
            np.zeros(halls, np.int64),
            np.zeros(1, np.int64),
        )

    def decide(self, state: SimState) -> None:
        """Stop what is too much, then start what delays no reservation."""
        assert self.rule is not None, "begin comes first"
        assert self.profile is not None, "begin comes first"
        run_reservations(state.world, self.rule, state.memory, self.profile, state.now_s)


CONSERVATIVE = PolicyKind("conservative", "conservative backfilling", lambda _: _Conservative(EASY_ORDER))
