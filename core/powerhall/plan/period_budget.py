"""A budget over a period: energy, cost or CO2 that the jobs of a tenant may use from its start to its end.

A run counts with the power of its GPUs (counted from zero) times `site_per_it`, from its start to its end or the end of
the period, whichever comes first: J for `energy`; with the price of each slot USD for `cost` (a negative price counts
as 0); with its carbon intensity g for `co2`. Behind the horizon the highest of the slots' holds on.
"""

from typing import Literal

import msgspec

__all__ = ["BudgetKind", "PeriodBudget"]

BudgetKind = Literal["energy", "cost", "co2"]


class PeriodBudget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tenant may use in a period, and what it has used so far, in J, USD or g; times in s since the epoch.

    `site_per_it` is the highest power at the meter per W of IT that a hall comes to. `name` tells budgets apart.
    """

    name: str
    tenant: str
    kind: BudgetKind
    limit: float
    used: float
    start_s: int
    end_s: int
    site_per_it: float = 1.0
    text: str = ""
    """The budget as people write it, such as `40 MWh of 2026-11`."""
    held: float = 0.0
    """The most that running jobs which no plan has may still use of it."""

    @property
    def left(self) -> float:
        """What is left of it."""
        return max(0.0, self.limit - self.used - self.held)
