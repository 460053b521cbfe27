"""Budgets over a period: the check that a plan keeps them, and their part of the proven bound.

A plan may start nothing of a tenant beyond what is left; running jobs may use more, and then nothing else starts. So in
every plan the runs of a tenant use `capacity` at most: what is left, or all that its running jobs can use. With a price
p >= 0 for a unit of the budget no plan is worth more than the bound in which every run pays p times what it uses, plus
p times the capacity. What a run uses is rounded down there, the capacity up.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from powerhall.jobs import Job
from powerhall.plan.period_budget import PeriodBudget
from powerhall.plan.plan import Snapshot, gpu_power_w
from powerhall.runtime.errors import Rejected
from powerhall_optimizer.verify.case import PlanCase, Violation
from powerhall_optimizer.verify.options import Option

__all__ = ["PRICE_BITS", "PricedBudgets", "budget_checks"]

Ints = npt.NDArray[np.object_]
PRICE_BITS = 20
"""Prices in the certificate are in units of value over `scale * 2**20`."""
_UNITS = {"energy": 1.0, "cost": 1e6, "co2": 1e3}
"""Parts of a J, USD and g that prices are for: J, millionths of a USD, mg."""
_ROUNDING = 1e-9
"""Sums of floats may be off by this part."""


def use_per_w(s: Snapshot, budget: PeriodBudget, start_s: float, end_s: float) -> float:
    """Return what a W of IT uses of a budget from one time to another, slot by slot."""
    begin, end = max(start_s, budget.start_s), min(end_s, budget.end_s)
    at_s = s.start_s + np.arange(s.slots, dtype=np.float64) * s.slot_s
    inside_s = np.maximum(0.0, np.minimum(end, at_s + s.slot_s) - np.maximum(begin, at_s))
    rates = np.array([_per_s(s, budget, slot) for slot in range(s.slots)])
    behind_s = max(0.0, end - max(begin, s.start_s + s.slots * s.slot_s))
    return float((rates * inside_s).sum() + rates.max() * behind_s)


def _per_s(s: Snapshot, budget: PeriodBudget, slot: int) -> float:
    if budget.kind == "cost":
        price = s.price_per_mwh[slot] if s.price_per_mwh else 0.0
        return budget.site_per_it * max(0.0, price) / 3.6e9
    if budget.kind == "co2":
        return budget.site_per_it * (s.carbon_g_per_kwh[slot] if s.carbon_g_per_kwh else 0.0) / 3.6e6
    return budget.site_per_it


def budget_checks(case: PlanCase) -> Iterator[Violation]:
    """Yield budgets that the plan's runs exceed, unless its running jobs alone do and nothing else starts."""
    s = case.snapshot
    for budget in s.period_budgets:
        used, starts = 0.0, False
        for job, entry in case.pairs:
            if job.tenant == budget.tenant:
                used += entry.gpus * entry.gpu_power_w * use_per_w(s, budget, entry.start_s, entry.end_s)
                starts = starts or not (entry.running or entry.gpus == 0)  # beside another, it adds no power
        if starts and used > budget.left * (1 + _ROUNDING) + _ROUNDING:
            whole = budget.text or budget.name
            text = f"tenant {budget.tenant} would use {used:.6g} of the {budget.left:.6g} left of its {whole}"
            yield Violation("period_budget", budget.name, text)


class PricedBudgets:
    """The budgets of a site at whole prices over `scale * 2**PRICE_BITS`."""

    def __init__(self, s: Snapshot, prices: Mapping[str, int]) -> None:
        """Take the prices by the budgets' names; one that is negative or names no budget raises Rejected."""
        known = {budget.name: budget for budget in s.period_budgets}
        for name, price in prices.items():
            if name not in known or price < 0:
                raise Rejected.field("plan", f"certificate.budgets.{name}", price, "must be a price >= 0 of a budget")
        self.snapshot = s
        self.priced = [(known[name], price) for name, price in prices.items() if price]
        self._sums: dict[str, npt.NDArray[np.float64]] = {}

    def of_capacity(self, running: Sequence[tuple[Job, Sequence[Option], int]]) -> int:
        """Return the cost of all budgets times the scale; `running` has the options of jobs, and their longest run."""
        total = 0
        for budget, price in self.priced:
            most = sum(
                max((self._power_w(job, option) for option in options), default=0.0)
                * float(self._used(budget, np.zeros(1), np.array([float(length)]))[0])
                for job, options, length in running
                if job.tenant == budget.tenant
            )
            capacity = math.ceil(max(budget.left, most) * _UNITS[budget.kind] * (1 + 2 * _ROUNDING)) + 1
            total += -(-price * capacity >> PRICE_BITS)
        return total

    def cost(self, job: Job, groups: Sequence[Sequence[Option]], length: Ints, starts: Ints) -> Ints | int:
        """Return what runs pay times the scale, [groups, starts]; a group pays as its cheapest option."""
        mine = [(budget, price) for budget, price in self.priced if budget.tenant == job.tenant]
        if not mine or job.gpu_share is not None:
            return 0
        watts = np.array([[min(self._power_w(job, option) for option in group)] for group in groups])
        total = np.zeros((len(groups), len(starts)), object)
        for budget, price in mine:
            used = watts * self._used(budget, starts.astype(float)[None, :], length.astype(float))
            amount = np.floor(used * _UNITS[budget.kind] * (1 - 2 * _ROUNDING)).astype(np.int64)
            total += amount.astype(object) * price >> PRICE_BITS
        return total

    def _power_w(self, job: Job, option: Option) -> float:
        site = self.snapshot.site
        kind = site.node_types[option.node_type]
        mode = next(mode for mode in kind.modes if mode.name == option.mode)
        return job.gpus * gpu_power_w(kind, mode, site.job_classes.get(job.job_class))

    def _used(
        self, budget: PeriodBudget, start: npt.NDArray[np.float64], length: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return what a W uses in runs of so many slots from each start slot."""
        s = self.snapshot
        if budget.name not in self._sums:
            at_s = [s.start_s + slot * s.slot_s for slot in range(s.slots)]
            each = [use_per_w(s, budget, begin_s, begin_s + s.slot_s) for begin_s in at_s]
            self._sums[budget.name] = np.concatenate(([0.0], np.cumsum(each)))
        sums = self._sums[budget.name]
        most = max(_per_s(s, budget, slot) for slot in range(s.slots))
        last_s = max(0.0, float(budget.end_s - s.start_s))

        def by(slot: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            at_s = np.minimum(slot * s.slot_s, last_s)
            inside = np.minimum(slot, s.slots).astype(np.int64)
            first_s = max(float(s.slots * s.slot_s), float(budget.start_s - s.start_s))
            found: npt.NDArray[np.float64] = sums[inside] + most * np.maximum(0.0, at_s - first_s)
            return found

        found: npt.NDArray[np.float64] = by(start + length) - by(start)
        return found
