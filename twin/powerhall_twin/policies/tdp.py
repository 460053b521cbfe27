"""Planning by nameplate: every busy GPU is planned at its share of the node's maximum power, as sites without
measurements do; EASY backfilling at full power.
"""

from powerhall_twin.engine.queue_passes import EASY_ORDER, QueueRule
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.policies.policy import PolicyKind
from powerhall_twin.policies.queue_policy import QueuePolicy, fastest_rule

__all__ = ["TDP"]


def _nameplate_rule(state: SimState) -> QueueRule:
    rule = fastest_rule(state)
    for number, kind in enumerate(state.arrays.types):
        rule.plan_nw[:, number] = state.arrays.added_nw(number, kind.max_power_w / kind.gpus)
    return rule


TDP = PolicyKind("tdp", "planning at nameplate power", lambda _: QueuePolicy(EASY_ORDER, _nameplate_rule))
