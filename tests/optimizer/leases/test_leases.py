"""Leases of a plan: granted caps keep every zone, plant and the meter within budget."""

import json
import random
import time

import pytest

from powerhall.lease import node_key, open_lease
from powerhall.physics.cooling import hall_load
from powerhall.plan.plan import write_plan
from powerhall.runtime.errors import Rejected
from powerhall.store import Query, Select, open_store
from powerhall_agent.capper.carrier import newest_lease
from powerhall_optimizer.cli import main
from powerhall_optimizer.leases.budgets import lease_budgets
from powerhall_optimizer.leases.caps import cap_requests, grant_leases, safe_caps_w
from powerhall_optimizer.leases.ledger import Ledger
from powerhall_optimizer.physics.site_conditions import SiteConditions

KEY = bytes(range(32))


def within(plan, caps_w, slot):
    """Whether true loads of nodes at these caps keep every limit in a slot, by the site's own physics."""
    site, conditions = plan.snapshot.site, SiteConditions(plan.snapshot)
    total = 0.0
    for hall in site.halls:
        liquid = air = 0.0
        for rack in hall.racks():
            share = site.node_types[rack.node_type].liquid_fraction
            load = sum(caps_w[node] for node in rack.nodes)
            liquid, air = liquid + share * load, air + (1 - share) * load
            if rack.zone in conditions.budgets_w and load > conditions.budgets_w[rack.zone][slot] + 1e-6:
                return False
        state = hall_load(hall, liquid, air, conditions.weather[slot])
        if not state.cooled or (
            hall.zone in conditions.budgets_w and liquid + air > conditions.budgets_w[hall.zone][slot] + 1e-6
        ):
            return False
        total += state.facility_power_w
    return total <= conditions.budgets_w[site.name][slot] + 1e-6


def test_whatever_the_ledger_grants_keeps_the_true_limits(plan):
    s = plan.snapshot
    budgets = lease_budgets(plan, s.start_s, s.start_s + 900)
    safe = safe_caps_w(s.site)
    nodes = list(safe)
    for seed in range(60):
        rng = random.Random(seed)
        ledger = Ledger(safe)
        for step in range(4):
            wanted = {node: rng.randint(1000, 10_200) for node in rng.sample(nodes, len(nodes) // 2)}
            ledger.grant(wanted, budgets, s.start_s + step, s.start_s + 900.0)
            exposure = {node: ledger.exposure_w(node, s.start_s + step) for node in nodes}
            assert within(plan, exposure, 0)


def test_a_plan_gets_its_leases_and_each_opens_on_its_node(plan):
    s = plan.snapshot
    now_s, until_s = s.start_s + 1.0, s.start_s + 900.0
    wanted = cap_requests(plan, now_s, until_s)
    assert wanted
    ledger = Ledger(safe_caps_w(s.site))
    leases = grant_leases(
        plan, wanted, ledger, lease_budgets(plan, now_s, until_s), site_key=KEY, now_s=now_s, until_s=until_s
    )
    assert len(leases) >= 0.9 * len(wanted)
    for lease, signed in leases:
        assert open_lease(signed, node_key(KEY, lease.node), lease.node, 0, now_s) == lease
        assert lease.node_cap_w <= ledger.exposure_w(lease.node, now_s)


def test_the_commands_carry_a_lease_from_plan_to_capper(plan, tmp_path, capsys):
    write_plan(plan, tmp_path / "plan.json")
    (tmp_path / "site.key").write_text(KEY.hex())
    url = f"sqlite:///{tmp_path}/s.db"
    options = ["--plan", str(tmp_path / "plan.json"), "--store", url, "--site-key", str(tmp_path / "site.key")]
    options += ["--ledger", str(tmp_path / "ledger.json")]
    assert main(["lease", *options, "--dry-run"]) == 0
    assert not (tmp_path / "ledger.json").exists()
    assert main(["lease", *options]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["leases"] > 0
    store = open_store(url)
    rows = store.query(
        Query("lease", (Select("cap_w", "last"),), group_by=("node",)), time.time() - 60, time.time() + 60
    )
    assert len(rows) == figures["leases"]
    node = rows[0].tags["node"]
    assert (
        main(["node-key", "--site-key", str(tmp_path / "site.key"), "--node", node, "--out", str(tmp_path / "n.key")])
        == 0
    )
    assert (tmp_path / "n.key").stat().st_mode & 0o077 == 0
    signed = newest_lease(store, node, time.time())
    store.close()
    assert open_lease(signed, bytes.fromhex((tmp_path / "n.key").read_text()), node, 0, time.time()).node == node


def test_a_short_site_key_is_refused_without_being_shown(plan, tmp_path, capsys):
    (tmp_path / "site.key").write_text("c0ffee")
    code = main(["node-key", "--site-key", str(tmp_path / "site.key"), "--node", "n", "--out", str(tmp_path / "k")])
    assert code == 1
    assert "c0ffee" not in capsys.readouterr().err


def test_safe_caps_above_the_budget_are_refused(plan):
    s = plan.snapshot
    budgets = lease_budgets(plan, s.start_s, s.start_s + 900)
    with pytest.raises(Rejected, match="safe caps"):
        Ledger(dict.fromkeys(safe_caps_w(s.site), 10_200)).check(budgets)
