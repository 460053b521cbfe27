"""The lowest power mode that a job's class bears: at most a tenth slower than at full power; EASY backfilling.

As GEOPM's policy for job queues sets it: the lowest cap that meets a maximum slowdown by a model of power and
performance (https://github.com/geopm/geopm, integration/service/open_pbs). Caps are not raised later.
"""

from typing import Final

import numpy as np

from powerhall_twin.engine.queue_passes import EASY_ORDER, QueueRule
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.policies.policy import PolicyKind
from powerhall_twin.policies.queue_policy import QueuePolicy, rule_of

__all__ = ["LOWEST_CAP"]

_MOST_SLOWDOWN: Final = 0.10


def _lowest_rule(state: SimState) -> QueueRule:
    """Choose per class and type the mode of least planned power among those that are fast enough."""
    draws = state.world.tables
    mode = np.zeros(draws.plan_nw.shape[:2], np.int64)
    for number, kind in enumerate(state.arrays.types):
        count = len(kind.modes)
        slow = draws.plan_speed[:, number, :count] < 1.0 / (1.0 + _MOST_SLOWDOWN)
        mode[:, number] = np.where(slow, np.iinfo(np.int64).max, draws.plan_nw[:, number, :count]).argmin(axis=1)
    return rule_of(state, mode)


LOWEST_CAP = PolicyKind("lowcap", "lowest cap per class", lambda _: QueuePolicy(EASY_ORDER, _lowest_rule))
