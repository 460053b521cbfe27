"""The plan of `rigs.leased_plan` for these tests."""

from rigs.leased_plan import plan

__all__ = ["plan"]
