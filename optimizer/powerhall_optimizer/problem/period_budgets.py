"""Which waiting jobs a budget over a period leaves no room for.

The jobs that may run are chosen before the plan: running jobs count first, then waiting jobs by value per part of the
budget, each with the most that it could use in any place, mode and start. Whatever is then planned keeps the budget.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from powerhall.jobs import Job
from powerhall.plan.period_budget import PeriodBudget
from powerhall.plan.snapshot import Snapshot

__all__ = ["Options", "barred_jobs", "most_used"]

Floats = npt.NDArray[np.float64]
Run = tuple[float, int]
"""Power of all GPUs of a job in W, counted from zero, and the slots that it takes."""
_FINE = 1e-9


class Options(Protocol):
    """Places and modes of a job: power of each of its GPUs in W, counted from zero, and speed."""

    @property
    def power_w(self) -> list[float]:
        """Power by place and mode."""
        ...

    @property
    def speed(self) -> Floats:
        """Speed by place and mode."""
        ...


def _summed(snapshot: Snapshot, budget: PeriodBudget) -> Callable[[Floats], Floats]:
    """Return what a W of IT uses from the snapshot's start to each time (s after it), within the period."""
    per_s = np.full(snapshot.slots, budget.site_per_it)
    if budget.kind == "cost":
        price = np.array(snapshot.price_per_mwh or [0.0] * snapshot.slots)
        per_s = per_s * np.maximum(0.0, price) / 3.6e9
    elif budget.kind == "co2":
        per_s = per_s * np.array(snapshot.carbon_g_per_kwh or [0.0] * snapshot.slots) / 3.6e6
    edges = np.arange(snapshot.slots + 1) * float(snapshot.slot_s)
    total = np.concatenate(([0.0], np.cumsum(per_s * snapshot.slot_s)))
    first, last = (max(0.0, float(at - snapshot.start_s)) for at in (budget.start_s, budget.end_s))

    def by(at_s: Floats) -> Floats:
        inside = np.clip(at_s, first, last)
        found: Floats = np.interp(inside, edges, total) + np.maximum(0.0, inside - edges[-1]) * per_s.max()
        return found

    return by


def most_used(snapshot: Snapshot, budget: PeriodBudget, job: Job, runs: Sequence[Run]) -> float:
    """Return the most of a budget that a job can use by any of its runs and starts."""
    by = _summed(snapshot, budget)
    count = 1 if job.state == "running" else snapshot.slots
    starts: Floats = np.arange(count, dtype=np.float64) * float(snapshot.slot_s)
    most = 0.0
    for power_w, slots in runs:
        ends: Floats = np.add(starts, slots * float(snapshot.slot_s))
        most = max(most, power_w * float((by(ends) - by(starts)).max()))
    return most


def _runs(snapshot: Snapshot, job: Job, options: Options | None) -> list[Run]:
    """Return the ways in which a job can run; none where it cannot start within the horizon."""
    first_s = max(job.submit_s, job.earliest_s or 0.0)
    if options is None or (job.state == "waiting" and first_s >= snapshot.start_s + snapshot.slots * snapshot.slot_s):
        return []
    slots = np.maximum(1, np.ceil(job.duration_s / options.speed / snapshot.slot_s - 1e-9)).astype(int).tolist()
    return [(job.gpus * watts, length) for watts, length in zip(options.power_w, slots, strict=True)]


def barred_jobs(snapshot: Snapshot, options_of: Callable[[Job], Options | None]) -> dict[str, str]:
    """Return the waiting jobs that may not start, with the reason; `options_of` has its places and modes."""
    barred: dict[str, str] = {}
    if not snapshot.period_budgets:
        return barred
    left = {budget.name: budget.left for budget in snapshot.period_budgets}
    waiting: list[tuple[float, Job, dict[str, float]]] = []
    for job in snapshot.jobs:
        mine = [budget for budget in snapshot.period_budgets if budget.tenant == job.tenant]
        runs = _runs(snapshot, job, options_of(job)) if mine else []
        if not runs:
            continue
        needs = {budget.name: most_used(snapshot, budget, job, runs) for budget in mine}
        if job.state == "running":
            for name, amount in needs.items():
                left[name] -= amount
        elif any(needs.values()):
            part = max(amount / max(left[name], _FINE) for name, amount in needs.items())
            waiting.append((job.weight * max(1, job.gpus) * job.duration_s / max(part, _FINE), job, needs))
    budgets = {budget.name: budget for budget in snapshot.period_budgets}
    for _, job, wanted in sorted(waiting, key=lambda entry: (-entry[0], entry[1].job_id)):
        short = [name for name, amount in wanted.items() if amount > left[name]]
        if short:
            barred[job.job_id] = _reason(budgets[short[0]], wanted[short[0]])
            continue
        for name, amount in wanted.items():
            left[name] -= amount
    return barred


def _reason(budget: PeriodBudget, needs: float) -> str:
    used = 100 * budget.used / budget.limit if budget.limit else 100.0
    whole = budget.text or budget.name
    share = 100 * needs / budget.limit if budget.limit else 100.0
    return (
        f"tenant {budget.tenant} has used {used:.3g} % of its {whole}; running jobs and jobs of more value take what "
        f"is left, and this one may use {share:.2g} %"
    )
