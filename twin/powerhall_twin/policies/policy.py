"""A policy's entry in the registry, and the inputs that it may open with."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from powerhall.plan.plan import Plan
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_twin.engine.policy import Policy
from powerhall_twin.site.scenario import Scenario

__all__ = ["PolicyInputs", "PolicyKind", "RoundTiming"]


@dataclass(frozen=True, slots=True)
class RoundTiming:
    """Time between rounds, length of a plan (both simulated), and real time that a round may solve.

    `event_s`: a round also runs when a job was submitted or ended and the last round is so long ago; infinite: only by
    the clock. `settings` are the optimizer's; None: its defaults, to a gap of 2 %.
    """

    round_s: float = 1800.0
    horizon_s: float = 6 * 3600.0
    solve_s: float = 2.0
    event_s: float = math.inf
    settings: RoundSettings | None = None


@dataclass(frozen=True, slots=True)
class PolicyInputs:
    """The inputs that a policy may open with; `plan` is the recorded plan, where the scenario comes from one."""

    scenario: Scenario
    timing: RoundTiming = RoundTiming()
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class PolicyKind:
    """A row of the registry: the name on the command line, the title in reports, and how to open the policy.

    `baseline` marks the policies that need no solver; the demo compares its day with them.
    """

    name: str
    title: str
    open: Callable[[PolicyInputs], Policy]
    baseline: bool = True
