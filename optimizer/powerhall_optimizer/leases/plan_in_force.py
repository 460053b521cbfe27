"""Read the plan in force: it must cover the present, and for leases it must verify."""

from pathlib import Path

from powerhall.plan.plan import Plan, read_plan
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.verify.plan import verify_plan

__all__ = ["check_present", "checked_plan", "present_plan"]


def checked_plan(path: Path, now_s: float) -> Plan:
    """Read a plan that verifies and covers now; another one raises Rejected."""
    plan = present_plan(path, now_s)
    broken = verify_plan(plan)
    if broken:
        raise Rejected(f"{path}: not verified: {broken[0]}")
    return plan


def present_plan(path: Path, now_s: float) -> Plan:
    """Read a plan that covers now, without checking its limits again: enough to lower its jobs."""
    plan = read_plan(path)
    check_present(plan, str(path), now_s)
    return plan


def check_present(plan: Plan, source: str, now_s: float) -> None:
    """Raise Rejected for a plan that does not cover now."""
    s = plan.snapshot
    if not s.start_s <= now_s < s.start_s + s.slots * s.slot_s:
        raise Rejected.field(source, "start_s", s.start_s, "the plan does not cover the present; run a round first")
