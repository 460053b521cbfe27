"""The interface of a scheduling policy: its input, its decisions, and its entry in the registry."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from powerhall.physics.weather import Weather
from powerhall.plan.plan import Plan
from powerhall.site.topology import Site
from powerhall_twin.policies.scenario import Scenario
from powerhall_twin.site.actions import Action
from powerhall_twin.site.cluster import Cluster
from powerhall_twin.site.queue import Queue

__all__ = ["Policy", "PolicyInputs", "PolicyKind", "PolicyView", "RoundTiming"]


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The state of the site at one moment; `budgets` maps zones to the limits in force, in W."""

    site: Site
    cluster: Cluster
    queue: Queue
    budgets: Mapping[str, float]
    weather: Weather
    now_s: float


class Policy(Protocol):
    """Decides which jobs start, stop or change their power mode."""

    def decide(self, view: PolicyView) -> Iterable[Action]:
        """Return the actions to take now; the engine calls this at every event."""
        ...


@dataclass(frozen=True, slots=True)
class RoundTiming:
    """Time between rounds, length of a plan (both simulated), and real time that a round may solve."""

    round_s: float = 1800.0
    horizon_s: float = 6 * 3600.0
    solve_s: float = 2.0


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
