"""Shed plans of a site with a battery, a tank and a loop: storage delivers no more than the slowed site takes."""

import pytest

from powerhall_optimizer.shed.act import shed_plan, with_frozen_budgets
from powerhall_optimizer.shed.ladder import ladder
from powerhall_optimizer.verify.plan import verify_plan
from rigs.stores import SITE, STORES, plan_of, snapshot_of


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    found = plan_of(snapshot_of(SITE + STORES, tmp_path_factory.mktemp("stores")), 3.0)
    assert not verify_plan(found)
    assert max(max(entry.power_w) for entry in found.storages) > 10_000, "storage delivers"
    return found


@pytest.mark.parametrize("slot", [0, 30, 40, 55])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 1.0])
def test_the_shed_plan_verifies(plan, slot, share):
    now_s = plan.snapshot.start_s + slot * plan.snapshot.slot_s + 1.0
    steps = ladder(plan, now_s)
    target_w = steps.power_w * (1 - share)
    draft = shed_plan(plan, steps, steps.rungs_to(target_w), target_w)
    assert verify_plan(with_frozen_budgets(draft, target_w, now_s, now_s + 3600)) == []
