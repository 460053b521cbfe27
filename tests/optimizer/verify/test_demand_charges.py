"""Demand charges in a plan's value: the bound holds against an exact model, and dear peaks are kept."""

import os
import random

import msgspec
import pytest

from powerhall.plan.demand import DemandTerm
from powerhall.plan.plan import Plan, Snapshot, snapshot_hash
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.demand import better_of_two
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.verify.options import unit_usd
from powerhall_optimizer.verify.plan import verify_plan
from powerhall_optimizer.verify.value import proven_bound
from rigs.exact_site import _loads, exact_optimum, small_site

replace = msgspec.structs.replace


def planned(snapshot: Snapshot) -> Plan:
    def make(seconds: float, keep_peaks: bool) -> Plan:
        return make_plan(
            snapshot, RoundSettings(workers=1), seconds, created_s=0, log=Log(quiet=True), keep_peaks=keep_peaks
        )

    return better_of_two(make, snapshot, 0.8, Log(quiet=True))


def charged(s: Snapshot, usd_per_kw: float, peak_w: float, slots: tuple[int, ...] | None = None) -> Snapshot:
    term = DemandTerm("grid", usd_per_kw, peak_w, tuple(range(s.slots)) if slots is None else slots)
    return replace(s, demand=(term,))


def idle_w(s: Snapshot) -> float:
    return max(sum(_loads(s, slot, ())[0].values()) for slot in range(s.slots))


@pytest.mark.parametrize("seed", range(int(os.environ.get("PROVE", "2"))))
def test_no_plan_at_any_peak_is_worth_more_than_the_bound(seed: int) -> None:
    """The exact model plans under limits at several heights; each pays for its height above the peak so far."""
    draw = random.Random(seed)
    s = replace(small_site(draw), margin_w={})
    limit_w = s.site.power_limit_w or 0.0
    low_w = idle_w(s)
    peak_w = draw.uniform(0.9 * low_w, limit_w)
    usd = draw.choice([0.02, 0.3, 3.0])
    s = charged(s, usd, peak_w)
    plan = planned(s)
    assert verify_plan(plan) == []
    assert plan.value <= plan.bound
    unit = unit_usd(s)
    best = None
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        height_w = max(low_w, peak_w) + part * max(0.0, limit_w - max(low_w, peak_w))
        worth = exact_optimum(replace(s, demand=(), site=replace(s.site, power_limit_w=height_w)))
        assert worth is not None
        net = worth - usd / 1000 * max(0.0, height_w - peak_w) / unit
        best = net if best is None else max(best, net)
    assert best is not None
    assert best - 2 <= plan.bound
    assert plan.certificate is not None
    for _ in range(10):
        factor = draw.choice([0, 1, 3, 10])
        prices = {name: tuple(price * factor // 2 for price in row) for name, row in plan.certificate.prices.items()}
        assert best - 2 <= proven_bound([s], replace(plan.certificate, prices=prices), {})


def test_a_dear_peak_is_kept_and_a_cheap_one_is_paid_for() -> None:
    s = next(s for s in (replace(small_site(random.Random(n)), margin_w={}) for n in range(50)) if not s.stale_nodes)
    s = replace(s, price_per_mwh=())
    free = planned(s)
    top_w = max(next(zone.planned_w for zone in free.zones if zone.zone == s.site.name))
    peak_w = idle_w(s) + 0.3 * (top_w - idle_w(s))
    dear, cheap = planned(charged(s, 1e6, peak_w)), planned(charged(s, 1e-3, peak_w))
    tops = [max(next(zone.planned_w for zone in plan.zones if zone.zone == s.site.name)) for plan in (dear, cheap)]
    assert tops[0] <= peak_w + 1
    assert tops[1] > peak_w
    paid = 1e-3 / 1000 * (tops[1] - peak_w) / unit_usd(s)
    assert cheap.value == pytest.approx(planned(charged(s, 1e-3, top_w + 1e3)).value - paid, rel=0.05)
    assert dear.value <= dear.bound <= free.bound


def test_a_plan_that_hides_its_charge_is_refused() -> None:
    s = replace(small_site(random.Random(1)), margin_w={})
    plan = planned(s)
    changed = charged(s, 10.0, 0.0)
    wrong = replace(plan, snapshot=changed, plan_id=snapshot_hash(changed))
    assert "value" in {violation.kind for violation in verify_plan(wrong)}
