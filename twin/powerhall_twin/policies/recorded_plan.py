"""One recorded plan as a policy: it is followed from beginning to end."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from powerhall.plan.plan import Plan
from powerhall_twin.policies.plan_follower import PlanScheduler, follow
from powerhall_twin.policies.policy import PolicyView
from powerhall_twin.site.actions import Action

__all__ = ["RecordedPlan"]


@dataclass(slots=True)
class RecordedPlan:
    """Follows one plan."""

    plan: Plan
    scheduler: PlanScheduler = field(default_factory=PlanScheduler)

    def decide(self, view: PolicyView) -> Iterable[Action]:
        """Adopt the plan at the first call, then start and stop jobs as they become due."""
        if self.scheduler.plan is None:
            return self.scheduler.take(self.plan, view.cluster) or follow(self.scheduler, view)
        return follow(self.scheduler, view)
