"""Powerhall's own policy in the registry; the optimizer is imported only when the policy is opened."""

from powerhall_twin.policies.policy import Policy, PolicyInputs, PolicyKind
from powerhall_twin.policies.recorded_plan import RecordedPlan

__all__ = ["POWERHALL", "RECORDED_PLAN"]


def _open_rounds(inputs: PolicyInputs) -> Policy:
    from powerhall_twin.policies.planned_rounds import PlannedRounds

    return PlannedRounds(inputs.scenario, inputs.timing)


def _open_recorded(inputs: PolicyInputs) -> Policy:
    assert inputs.plan is not None
    return RecordedPlan(inputs.plan)


POWERHALL = PolicyKind("powerhall", "Powerhall", _open_rounds, baseline=False)
RECORDED_PLAN = PolicyKind("recorded plan", "recorded plan", _open_recorded, baseline=False)
"""Takes the place of POWERHALL where the inputs come with a plan."""
