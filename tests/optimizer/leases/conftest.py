"""The plan of `rigs.leased_plan` and the desk of `rigs.lease_desk` for these tests."""

from rigs.lease_desk import desk
from rigs.leased_plan import plan

__all__ = ["desk", "plan"]
