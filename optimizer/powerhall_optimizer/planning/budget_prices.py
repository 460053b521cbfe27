"""Prices of budgets over a period: with the other prices as they are, those that prove the lowest bound."""

from collections.abc import Callable, Sequence

import msgspec

from powerhall.plan.period_budget import PeriodBudget
from powerhall.plan.plan import Certificate

__all__ = ["with_budget_prices"]

_FACTORS = (1e-3, 1e-2, 0.1, 0.3, 0.55, 0.8, 1.0, 1.3, 2.0, 4.0)
"""Prices that are tried, over the mean worth of a unit of the budget."""
_FINER = (0.92, 0.97, 1.03, 1.08)
_MOST_PRICE = 1 << 60


def with_budget_prices(
    certificate: Certificate, budgets: Sequence[PeriodBudget], prove: Callable[[Certificate], int]
) -> Certificate:
    """Return the certificate with a price for each budget that lowers the bound; `prove` returns a bound."""
    best, bound = certificate, prove(certificate) if budgets else 0
    for budget in budgets:
        at = max(1.0, bound * certificate.scale * 2.0**20 / max(_in_units(budget), 1.0))
        for factors in (_FACTORS, _FINER):
            for factor in factors:
                price = round(at * factor)
                if not 0 < price < _MOST_PRICE:
                    continue
                tried = msgspec.structs.replace(best, budgets={**best.budgets, budget.name: price})
                if (found := prove(tried)) < bound:
                    best, bound = tried, found
            at = float(best.budgets.get(budget.name, 0)) or at
    return best


def _in_units(budget: PeriodBudget) -> float:
    """Return what is left of a budget in the units of its price; where nothing is, a hundredth of all."""
    units = {"energy": 1.0, "cost": 1e6, "co2": 1e3}[budget.kind]
    return max(budget.left, 0.01 * budget.limit) * units
