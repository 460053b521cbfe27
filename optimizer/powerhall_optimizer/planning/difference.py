"""What two plans prove about the difference of two sites: intervals of the best value, and what follows from them.

The best value of a site lies between the value of its plan and the plan's bound. So the best values of two sites
differ by at least `value - bound` and at most `bound - value` of the one and the other. Where limits of power were only
raised, every plan of before still holds and is worth the same: the best value cannot be less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan, Snapshot, WaitCode
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_optimizer.verify.options import unit_usd

__all__ = ["Difference", "Direction", "Interval", "difference", "direction", "interval"]

replace = msgspec.structs.replace


class Direction(StrEnum):
    """How limits of power differ, where nothing else does."""

    LOOSENED = "loosened"
    TIGHTENED = "tightened"
    SAME = "same"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the best value of a site lies, in USD: no less than its plan, no more than the plan's bound."""

    value_usd: float
    bound_usd: float


@dataclass(frozen=True, slots=True)
class Difference:
    """What is proven of "what if" less "as it is", in USD; `why_not` is set where the two values are no one measure."""

    low_usd: float
    high_usd: float
    direction: Direction
    why_not: str = ""

    @property
    def proven(self) -> str:
        """Say "more" or "less" where the best value of the changed site is proven to be so; else nothing."""
        if self.why_not:
            return ""
        return "more" if self.low_usd > 0 else "less" if self.high_usd < 0 else ""

    @property
    def statement(self) -> str:
        """Return one sentence for people."""
        if self.why_not:
            return f"no difference provable: {self.why_not}"
        if self.direction is Direction.SAME:
            return "no difference: the change changes nothing"
        if self.proven == "more":
            return f"proven: the best plan is worth {self.low_usd:,.2f} to {self.high_usd:,.2f} USD more"
        if self.proven == "less":
            return f"proven: the best plan is worth {-self.high_usd:,.2f} to {-self.low_usd:,.2f} USD less"
        never = {Direction.LOOSENED: "; a raised limit is never worse", Direction.TIGHTENED: "; nor can it be more"}
        return (
            f"no difference provable: the best value changes by {self.low_usd:+,.2f} to {self.high_usd:+,.2f} USD"
            f"{never.get(self.direction, '')}"
        )


def interval(plan: Plan | MultiSitePlan) -> Interval:
    """Return the interval of a plan in USD."""
    if isinstance(plan, MultiSitePlan):
        unit = unit_usd(replace(plan.plans[0].snapshot, jobs=plan.jobs))
    else:
        unit = unit_usd(plan.snapshot)
    return Interval(plan.value * unit, plan.bound * unit)


def difference(base: Plan | MultiSitePlan, other: Plan | MultiSitePlan) -> Difference:
    """Return what the plans prove about the change from `base` to `other`."""
    one, two = interval(base), interval(other)
    low, high = two.value_usd - one.bound_usd, two.bound_usd - one.value_usd
    before, after = [p.snapshot for p in _plans(base)], [p.snapshot for p in _plans(other)]
    found = direction(before, after) if _queue(base) == _queue(other) else Direction.OTHER
    if found in (Direction.LOOSENED, Direction.SAME):
        low = max(0.0, low)
    if found in (Direction.TIGHTENED, Direction.SAME):
        high = min(0.0, high)
    return Difference(low, high, found, _why_not(base, other))


def direction(before: Sequence[Snapshot], after: Sequence[Snapshot]) -> Direction:
    """Return how the limits of power differ; `other` where anything else differs, or some rise and some fall."""
    if any(_rest(one) != _rest(two) for one, two in zip(before, after, strict=True)):
        return Direction.OTHER
    signs = {sign for one, two in zip(before, after, strict=True) for sign in _signs(one.site, two.site)}
    if not signs:
        return Direction.SAME
    return Direction.OTHER if len(signs) > 1 else Direction.LOOSENED if signs == {1} else Direction.TIGHTENED


def _signs(before: Site, after: Site) -> set[int]:
    """Return the signs of all changes of limits and budgets."""
    pairs: list[tuple[float | None, float | None]] = []
    one, two = SiteIndex.of(before).limits_w, SiteIndex.of(after).limits_w
    pairs += [(one[zone], two[zone]) for zone in one]
    for zone in {*before.budgets, *after.budgets}:
        old, new = before.budgets.get(zone), after.budgets.get(zone)
        if old is None or new is None or old.times_s != new.times_s:
            return {-1, 1}
        pairs += zip(old.values, new.values, strict=True)
    free = [(float("inf") if a is None else a, float("inf") if b is None else b) for a, b in pairs]
    return {1 if b > a else -1 for a, b in free if a != b}


def _rest(snapshot: Snapshot) -> bytes:
    """Return all of a snapshot but its queue and the limits of power, encoded."""
    site = snapshot.site
    halls = tuple(
        replace(
            hall,
            power_limit_w=None,
            rows=tuple(
                replace(row, power_limit_w=None, racks=tuple(replace(rack, power_limit_w=None) for rack in row.racks))
                for row in hall.rows
            ),
        )
        for hall in site.halls
    )
    feeds = tuple(replace(feed, power_limit_w=None) for feed in site.feeds)
    bare = replace(site, halls=halls, feeds=feeds, power_limit_w=None, budgets={})
    return msgspec.json.encode(replace(snapshot, site=bare, jobs=(), planned=()), order="sorted")


def _plans(plan: Plan | MultiSitePlan) -> Sequence[Plan]:
    return plan.plans if isinstance(plan, MultiSitePlan) else (plan,)


def _queue(plan: Plan | MultiSitePlan) -> bytes:
    return msgspec.json.encode(plan.jobs if isinstance(plan, MultiSitePlan) else plan.snapshot.jobs)


def _why_not(base: Plan | MultiSitePlan, other: Plan | MultiSitePlan) -> str:
    if _queue(base) != _queue(other):
        return "another weight changes what work is worth; the two values are not of one measure"
    if _shed(base) != _shed(other):
        return "not the same running jobs are shed, and a bound holds for plans that shed the same ones"
    return ""


def _shed(plan: Plan | MultiSitePlan) -> set[str]:
    return {w.job_id for part in _plans(plan) for w in part.waiting if w.code == WaitCode.SHED}
