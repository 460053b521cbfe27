"""Powerhall's own policy in the registry; the optimizer is imported only when the policy is opened."""

from powerhall_twin.engine.policy import Policy
from powerhall_twin.policies.policy import PolicyInputs, PolicyKind
from powerhall_twin.policies.recorded_plan import RecordedPlan

__all__ = ["POWERHALL", "RECORDED_PLAN"]


def _open_rounds(inputs: PolicyInputs) -> Policy:
    from powerhall_twin.policies.planned_rounds import PlannedRounds

    if inputs.timing.settings is None:
        return PlannedRounds(inputs.scenario, inputs.timing)
    return PlannedRounds(inputs.scenario, inputs.timing, inputs.timing.settings)


def _open_recorded(inputs: PolicyInputs) -> Policy:
    assert inputs.plan is not None
    return RecordedPlan(inputs.plan)


POWERHALL = PolicyKind("powerhall", "Powerhall", _open_rounds, baseline=False)
RECORDED_PLAN = PolicyKind("recorded plan", "recorded plan", _open_recorded, baseline=False)
"""Takes the place of POWERHALL where the inputs come with a plan."""
