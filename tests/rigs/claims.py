"""What a plan says of its own worth, made to fit after a change by hand."""

import msgspec

from powerhall.plan.plan import Plan
from powerhall_optimizer.verify.value import value_and_bound

__all__ = ["with_claims"]


def with_claims(plan: Plan) -> Plan:
    """Return the plan with the value and the bound that the checker finds, their gap, and a status no better."""
    value, bound = value_and_bound(plan)
    gap = (bound - value) / bound if bound > 0 else 0.0
    status = "feasible" if plan.status == "optimal" and value < bound else plan.status
    return msgspec.structs.replace(plan, value=value, bound=bound, gap=gap, status=status)
