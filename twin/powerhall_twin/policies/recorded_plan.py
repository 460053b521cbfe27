"""One recorded plan as a policy: it is followed from beginning to end."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from powerhall.plan.plan import Plan
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.policies.plan_runner import PlanRunner

__all__ = ["RecordedPlan"]


@dataclass(slots=True)
class RecordedPlan:
    """Follows one plan."""

    plan: Plan
    runner: PlanRunner = field(default_factory=PlanRunner)

    def begin(self, state: SimState) -> None:
        """Adopt the plan."""
        self.runner.take(self.plan, state)

    def planned_stores(self, now_s: float, /) -> tuple[Mapping[str, float] | None, float]:
        """Return what the plan has for now."""
        return self.runner.planned_stores(now_s)

    def decide(self, state: SimState) -> None:
        """Start and stop jobs as they become due."""
        self.runner.follow(state)
