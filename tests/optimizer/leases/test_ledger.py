"""No zone goes over budget whatever happens to leases on their way."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from powerhall.runtime.errors import Rejected
from powerhall_optimizer.leases.ledger import Budget, Ledger

NODES = ("a1", "a2", "b1", "b2")
SAFE = dict(zip(NODES, (100, 150, 100, 200), strict=True))
BUDGETS = [Budget("a", 900, NODES[:2]), Budget("b", 1000, NODES[2:]), Budget("site", 1500, NODES)]

CAPS = st.fixed_dictionaries({node: st.integers(50, 900) for node in NODES})
INDEX = st.integers(0, 60)
ROUND = st.tuples(
    CAPS,
    st.permutations(NODES),
    st.sets(st.sampled_from(NODES)),  # whose leases are lost
    st.lists(INDEX, max_size=4),  # which of all leases ever sent arrive now, again or late
    st.sets(st.sampled_from(NODES)),  # whose agent is silent, or whose capper dies and comes back
    st.lists(INDEX, max_size=4),  # which of all confirmations ever given arrive now, again, late or overtaken
    st.floats(1.0, 20.0),  # seconds until the next round
    st.booleans(),  # whether the planner's process is a new one
)


class Node:
    """Obeys the capper's rules; `sequence` is on its disk."""

    def __init__(self, safe_w):
        self.safe_w, self.cap_w, self.sequence, self.expires_s, self.held = safe_w, safe_w, 0, 0.0, False

    def receive(self, entry, now_s):
        newer = entry.sequence > self.sequence or (entry.sequence == self.sequence and not self.is_held(now_s))
        if newer and entry.expires_s > now_s:
            self.sequence, self.cap_w, self.expires_s, self.held = entry.sequence, entry.cap_w, entry.expires_s, True

    def is_held(self, now_s):
        return self.held and self.expires_s > now_s

    def power_w(self, now_s):
        return self.cap_w if self.is_held(now_s) else self.safe_w


def test_no_other_user_may_read_the_lock_of_a_ledger_and_so_hold_it(tmp_path):
    """Rounds and roll-up read events in its folder: either could keep grants and sheds out."""
    before = os.umask(0o022)
    try:
        Ledger(SAFE, tmp_path / "ledger.json").grant({"a1": 500}, BUDGETS, 0.0, 60.0)
    finally:
        os.umask(before)
    assert (tmp_path / ".ledger.json.lock").stat().st_mode & 0o077 == 0


def assert_within(nodes, now_s):
    for budget in BUDGETS:
        assert sum(nodes[n].power_w(now_s) for n in budget.nodes) <= budget.budget_w, budget.zone


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(ROUND, min_size=1, max_size=12))
def test_no_zone_goes_over_budget_whatever_happens_to_leases_and_confirmations(tmp_path, rounds):
    path = tmp_path / "ledger.json"
    path.unlink(missing_ok=True)
    ledger, nodes, now_s = Ledger(SAFE, path), {n: Node(SAFE[n]) for n in NODES}, 0.0
    sent, words = [], []
    for caps, order, lost, arrive, fallen, told, wait_s, is_new in rounds:
        ledger = Ledger(SAFE, path) if is_new else ledger
        granted = ledger.grant({n: caps[n] for n in order}, BUDGETS, now_s, now_s + 30.0)
        for node, entry in granted.items():
            assert entry.cap_w <= max(caps[node], SAFE[node])
            sent.append((node, entry))
            if node not in lost:
                nodes[node].receive(entry, now_s)
        assert_within(nodes, now_s)
        words += [(name, node.sequence) for name, node in nodes.items() if node.sequence]
        for node in fallen:
            nodes[node].held = False
        for index in arrive:
            node, entry = sent[index % len(sent)]
            nodes[node].receive(entry, now_s)
        assert_within(nodes, now_s)
        for index in told:
            if words:
                ledger.acknowledge(dict([words[index % len(words)]]), now_s)
        now_s += wait_s
        assert_within(nodes, now_s)


def test_a_confirmation_of_a_lease_that_was_never_granted_frees_nothing():
    ledger, budget = Ledger({"a": 100, "b": 100}), [Budget("site", 1000, ("a", "b"))]
    granted = ledger.grant({"a": 900}, budget, 1.0, 30.0)["a"]
    assert ledger.acknowledge({"a": granted.sequence + 1, "nobody": 1}, 2.0) == 0
    assert ledger.exposure_w("a", 2.0) == 900


def test_an_emergency_only_lowers_caps_for_any_budgets():
    ledger, budget = Ledger({"a": 400, "b": 400}), [Budget("site", 1000, ("a", "b"))]
    ledger.grant({"a": 600}, budget, 0.0, 30.0)
    low = ledger.lower({"a": 500, "b": 900}, 1.0, 61.0)
    assert (low["a"].cap_w, low["b"].cap_w) == (500, 400)
    assert ledger.exposure_w("a", 2.0) == 600
    assert ledger.exposure_w("a", 32.0) == 500


def test_two_processes_with_one_ledger_count_each_others_leases(tmp_path):
    path, budget, safe = tmp_path / "ledger.json", [Budget("site", 1000, ("a", "b"))], {"a": 100, "b": 100}
    rounds, shed = Ledger(safe, path), Ledger(safe, path)
    assert rounds.grant({"a": 900}, budget, 0.0, 30.0)["a"].cap_w == 900
    assert shed.grant({"b": 900}, budget, 1.0, 31.0)["b"].cap_w == 100
    assert shed.exposure_w("a", 2.0) == 900


def test_concurrent_processes_never_grant_more_than_the_budget(tmp_path):
    program = """
import sys
from pathlib import Path
from powerhall_optimizer.leases.ledger import Budget, Ledger
names = tuple("abcdefgh")
ledger = Ledger(dict.fromkeys(names, 10), Path(sys.argv[1]))
for turn in range(15):
    ledger.grant({sys.argv[2]: 400}, [Budget("site", 1000, names)], float(turn), 1e6)
"""
    path = tmp_path / "ledger.json"
    crowd = [subprocess.Popen([sys.executable, "-c", program, path, name]) for name in "abcd"]
    assert [process.wait(60) for process in crowd] == [0] * 4
    ledger = Ledger(dict.fromkeys("abcdefgh", 10), path)
    assert sum(ledger.exposure_w(name, 20.0) for name in "abcdefgh") <= 1000


def test_a_lost_ledger_still_grants_leases_that_cappers_accept(tmp_path):
    before = Ledger({"a": 100}).grant({"a": 200}, [], 1000.0, 1030.0)["a"]
    assert Ledger({"a": 100}).grant({"a": 200}, [], 1060.0, 1090.0)["a"].sequence > before.sequence


def test_leases_that_add_nothing_are_forgotten():
    ledger = Ledger({"a": 100})
    for turn in range(50):
        ledger.lower({"a": 100}, float(turn), 900.0 + turn)
    assert len(ledger._state.entries["a"]) == 1


def test_a_budget_cut_raises_nothing_until_the_old_leases_have_run_out():
    ledger = Ledger({"a": 100, "b": 100})
    wide, cut = [Budget("site", 1000, ("a", "b"))], [Budget("site", 500, ("a", "b"))]
    assert ledger.grant({"a": 800}, wide, 0.0, 30.0)["a"].cap_w == 800
    during = ledger.grant({"a": 200, "b": 300}, cut, 10.0, 40.0)
    assert (during["a"].cap_w, during["b"].cap_w) == (200, 100)
    after = ledger.grant({"b": 300}, cut, 32.0, 60.0)
    assert after["b"].cap_w == 300


def test_a_confirmed_lower_cap_frees_its_room_at_once():
    ledger, budget = Ledger({"a": 100, "b": 100}), [Budget("site", 1000, ("a", "b"))]
    ledger.grant({"a": 900}, budget, 0.0, 30.0)
    lower = ledger.grant({"a": 200}, budget, 1.0, 31.0)["a"]
    assert ledger.grant({"b": 500}, budget, 2.0, 32.0)["b"].cap_w == 100
    assert ledger.acknowledge({"a": lower.sequence}, 2.5) == 1
    assert ledger.grant({"b": 500}, budget, 3.0, 33.0)["b"].cap_w == 500


def test_the_ledger_survives_a_restart(tmp_path):
    path, budget = tmp_path / "ledger.json", [Budget("site", 1000, ("a", "b"))]
    safe = {"a": 100, "b": 100}
    first = Ledger(safe, path).grant({"a": 900}, budget, 0.0, 30.0)["a"]
    again = Ledger(safe, path)
    assert again.exposure_w("a", 5.0) == 900
    second = again.grant({"b": 900}, budget, 5.0, 35.0)["b"]
    assert second.cap_w == 100
    assert second.sequence > first.sequence


def test_a_truncated_ledger_is_refused_rather_than_forgotten(tmp_path):
    path = tmp_path / "ledger.json"
    path.write_text('{"sequence": 3, "entr')
    with pytest.raises(Rejected, match="seal: is missing"):
        Ledger({"a": 1}, path)


def test_safe_caps_above_a_budget_are_refused():
    with pytest.raises(Rejected, match="safe caps: site"):
        Ledger({"a": 600, "b": 600}).check([Budget("site", 1000, ("a", "b"))])


def test_the_benchmark_sees_the_ledger_hold_where_naive_planning_fails(root, tmp_path):
    out = tmp_path / "ledger.json"
    program = [sys.executable, root / "benchmarks" / "ledger.py", "--quick", "--json", out]
    subprocess.run(program, check=True, capture_output=True)
    figures = json.loads(out.read_text())
    assert figures["over_budget"] == 0
    assert figures["over_budget_with_confirmations"] == 0
    assert figures["naive_over_budget"] > 0
    assert figures["budget_use_mean_with_confirmations"] > figures["budget_use_mean"]
    assert 0.5 < figures["budget_use_mean"] <= 1.0
