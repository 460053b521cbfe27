"""The emergency shed: the ladder's order, its protected jobs, and the leases and plan that it sends."""

import json
import time
from itertools import pairwise

import msgspec
import pytest

from powerhall.plan.plan import read_plan, write_plan
from powerhall.runtime.errors import Rejected
from powerhall.store import Query, Select, open_store
from powerhall_optimizer.cli import main
from powerhall_optimizer.commands.shed import read_target
from powerhall_optimizer.leases.caps import safe_caps_w
from powerhall_optimizer.physics.plan_loads import plan_loads
from powerhall_optimizer.round.publish import publish
from powerhall_optimizer.shed.act import shed_plan, with_frozen_budgets
from powerhall_optimizer.shed.ladder import Ladder, ladder
from powerhall_optimizer.shed.shedder import Shedder
from rigs.confirmed import confirmed_ledger

KEY = bytes(range(32))


@pytest.fixture
def steps(plan):
    return ladder(plan, plan.snapshot.start_s + 1.0)


def test_the_ladder_starts_at_the_plans_own_power(plan, steps):
    assert steps.power_w == pytest.approx(plan_loads(plan).zone_w[plan.snapshot.site.name][0], abs=1.0)


def test_every_rung_leaves_less_power_and_rungs_come_in_the_stated_order(steps):
    assert steps.actions
    left = [steps.power_w, *(action.left_w for action in steps.actions)]
    assert all(b <= a + 1e-6 for a, b in pairwise(left))
    kinds = [{"lower": 0, "pause": 1, "stop": 2}[action.kind] for action in steps.actions]
    assert kinds == sorted(kinds)


def test_no_rung_touches_a_job_that_may_not_be_preempted(plan, steps):
    preemptible = {job.job_id for job in plan.snapshot.jobs if job.preemptible}
    assert {action.job_id for action in steps.actions} <= preemptible
    assert not set(steps.protected) & preemptible


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
def test_the_shed_plan_draws_what_the_ladder_says(plan, steps, share):
    target_w = steps.power_w * (1 - share)
    rungs = steps.rungs_to(target_w)
    now_s = plan.snapshot.start_s + 1.0
    after = with_frozen_budgets(shed_plan(plan, steps, rungs, target_w), target_w, now_s, now_s + 3600)
    left_w = plan_loads(after).zone_w[plan.snapshot.site.name][0]
    assert left_w == pytest.approx(steps.actions[rungs - 1].left_w, rel=1e-6)
    assert left_w <= target_w
    assert rungs == 1 or steps.actions[rungs - 2].left_w > target_w


def test_a_target_above_the_present_power_takes_no_rung(steps):
    assert steps.rungs_to(steps.power_w + 1.0) == 0


@pytest.mark.parametrize(("to", "by"), [("350", None), ("-3 MW", None), (None, "0.3"), (None, "0%"), (None, "130%")])
def test_targets_without_meaning_are_refused(to, by):
    with pytest.raises(Rejected, match=r"--to|--by"):
        read_target(to, by, 1e6)


def test_a_share_is_read_with_or_without_its_sign():
    assert read_target(None, "30%", 1e6) == read_target(None, "30", 1e6) == 7e5


def options(plan, tmp_path):
    write_plan(plan, tmp_path / "plan.json")
    (tmp_path / "site.key").write_text(KEY.hex())
    confirmed_ledger(tmp_path / "ledger.json", safe_caps_w(plan.snapshot.site))
    return ["--plan", str(tmp_path / "plan.json"), "--store", f"sqlite:///{tmp_path}/s.db", "--site-key",
            str(tmp_path / "site.key"), "--ledger", str(tmp_path / "ledger.json"), "--json"]  # fmt: skip


def test_the_command_lowers_caps_and_writes_the_shed_plan(plan, tmp_path, capsys):
    common = options(plan, tmp_path)
    assert main(["lease", *common[:-1]]) == 0
    assert main(["shed", "--by", "15%", *common, "--out", str(tmp_path / "shed.json")]) == 0
    outcome = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert outcome["met"]
    assert outcome["leases"] > 0
    assert outcome["after_w"] <= 0.85 * outcome["before_w"]
    store = open_store(common[3])
    query = Query("lease", (Select("cap_w", "first", "before"), Select("cap_w", "last", "after")), group_by=("node",))
    rows = store.query(query, time.time() - 60, time.time() + 60)
    store.close()
    assert all(row.number("after") <= row.number("before") for row in rows)
    assert any(row.number("after") < row.number("before") for row in rows)
    after = read_plan(tmp_path / "shed.json")
    assert any("emergency shed" in note for note in after.notes)
    assert {w.code for w in after.waiting} >= ({"shed"} if outcome["paused"] + outcome["stopped"] else set())


@pytest.mark.parametrize("kind", ["lost", "damaged"])
def test_a_shed_without_a_ledger_brings_touched_nodes_to_their_safe_caps(plan, tmp_path, capsys, kind):
    """Of a node of which nothing is known, any other cap might be a raise."""
    common = options(plan, tmp_path)
    assert main(["lease", *common[:-1]]) == 0
    (tmp_path / "ledger.json").unlink() if kind == "lost" else (tmp_path / "ledger.json").write_bytes(b"\xff{")
    assert main(["shed", "--by", "15%", *common, "--out", str(tmp_path / "shed.json")]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["leases"] > 0
    assert "lease_ledger" in captured.err
    assert "Traceback" not in captured.err
    store = open_store(common[3])
    query = Query("lease", (Select("cap_w", "first", "before"), Select("cap_w", "last", "after")), group_by=("node",))
    rows = store.query(query, time.time() - 60, time.time() + 60)
    store.close()
    touched = [row for row in rows if row.number("after") != row.number("before")]
    assert touched
    assert {row.number("after") for row in touched} == {3000.0}


def test_a_ramp_gives_way_and_hands_no_plan_over_that_it_has_not_reached(plan, steps, tmp_path):
    now_s = [plan.snapshot.start_s + 1.0]
    begin_s = now_s[0]

    def sleep(seconds):
        now_s[0] += seconds

    out, clock = tmp_path / "out.json", lambda: now_s[0]
    shedder = Shedder(None, None, None, None, out, ramp_w_per_s=10.0, clock=clock, sleep=sleep)
    half = {"target_w": 0.9 * steps.power_w, "within_s": 3600.0}
    outcome = shedder.act(plan, steps, **half, must_yield=lambda: now_s[0] > begin_s + 30.0)
    assert now_s[0] < begin_s + 31.0
    assert not outcome.met
    assert "another event had to act first" in outcome.problems[0]
    assert not out.exists()
    assert shedder.act(plan, steps, **half).met
    assert out.exists()


def test_a_target_that_cannot_be_reached_takes_the_whole_ladder_and_is_reported(plan, tmp_path, capsys):
    assert main(["shed", "--to", "1 W", *options(plan, tmp_path)]) == 1
    outcome = json.loads(capsys.readouterr().out)
    assert not outcome["met"]
    assert outcome["after_w"] < outcome["before_w"]


def test_a_dry_run_and_the_ladder_change_nothing(plan, tmp_path, capsys):
    common = options(plan, tmp_path)
    before = (tmp_path / "ledger.json").read_bytes()
    assert main(["shed", "--by", "10%", *common, "--dry-run"]) == 0
    assert main(["shed", "--show", "--plan", str(tmp_path / "plan.json")]) == 0
    assert "leaves" in capsys.readouterr().out
    assert (tmp_path / "ledger.json").read_bytes() == before
    assert not (tmp_path / "s.db").exists()


def test_a_shed_without_store_scheduler_or_file_is_refused(plan, tmp_path, capsys):
    write_plan(plan, tmp_path / "plan.json")
    assert main(["shed", "--by", "10%", "--plan", str(tmp_path / "plan.json")]) == 1
    assert "needs --store with keys, --scheduler or --out" in capsys.readouterr().err


def test_every_published_plan_has_its_ladder_beside_it_and_in_the_store(plan, tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/s.db")
    publish(plan, store, tmp_path / "plan.json")
    kept = store.latest_document("ladder", plan.snapshot.site.name)
    store.close()
    assert kept == (tmp_path / "plan-ladder.json").read_bytes()
    steps = msgspec.json.decode(kept, type=Ladder)
    assert steps == ladder(plan, float(plan.snapshot.taken_s))
    assert steps.plan_id == plan.plan_id
    assert steps.actions[-1].left_w < steps.power_w
