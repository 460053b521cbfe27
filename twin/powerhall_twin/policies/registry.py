"""Policies by name. To add a policy, add a module beside this file, a row here, a test and an entry in the docs."""

from collections.abc import Mapping

from powerhall.runtime.errors import Rejected
from powerhall_twin.policies.conservative import CONSERVATIVE
from powerhall_twin.policies.density import DENSITY
from powerhall_twin.policies.easy import EASY
from powerhall_twin.policies.fcfs import FCFS
from powerhall_twin.policies.lowest_cap import LOWEST_CAP
from powerhall_twin.policies.policy import PolicyInputs, PolicyKind
from powerhall_twin.policies.powerhall import POWERHALL, RECORDED_PLAN
from powerhall_twin.policies.tdp import TDP
from powerhall_twin.policies.uniform_cap import UNIFORM_CAP

__all__ = ["BASELINES", "DEFAULT_POLICY", "POLICY_KINDS", "policy_kind"]

POLICY_KINDS: Mapping[str, PolicyKind] = {
    kind.name: kind for kind in (POWERHALL, FCFS, EASY, CONSERVATIVE, DENSITY, UNIFORM_CAP, LOWEST_CAP, TDP)
}
"""Every policy by its name on the command line."""

BASELINES: tuple[PolicyKind, ...] = tuple(kind for kind in POLICY_KINDS.values() if kind.baseline)
"""The policies that need no solver."""

DEFAULT_POLICY = POWERHALL.name


def policy_kind(name: str, inputs: PolicyInputs) -> PolicyKind:
    """Return the kind of this name; with a recorded plan, that plan takes the place of Powerhall's rounds."""
    kind = POLICY_KINDS.get(name)
    if kind is None:
        raise Rejected.field("command line", "--policies", name, f"must be one of {', '.join(POLICY_KINDS)}")
    return RECORDED_PLAN if kind is POWERHALL and inputs.plan is not None else kind
