"""No zone goes over budget whatever happens to leases on their way."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall.errors import Rejected
from powerhall_optimizer.ledger import Budget, Ledger

NODES = ("a1", "a2", "b1", "b2")
SAFE = dict(zip(NODES, (100, 150, 100, 200), strict=True))
BUDGETS = [Budget("a", 900, NODES[:2]), Budget("b", 1000, NODES[2:]), Budget("site", 1500, NODES)]

CAPS = st.fixed_dictionaries({node: st.integers(50, 900) for node in NODES})
ROUND = st.tuples(
    CAPS,
    st.permutations(NODES),
    st.sets(st.sampled_from(NODES)),  # lost
    st.sets(st.sampled_from(NODES)),  # confirmed
    st.lists(st.integers(0, 40), max_size=4),  # which of the older leases arrive again now, and late
    st.floats(1.0, 20.0),  # seconds until the next round
    st.integers(0, 400),  # how far the site's budget is cut for this round
)


class Node:
    """Obeys the capper's rules."""

    def __init__(self, safe_w):
        self.safe_w, self.cap_w, self.sequence, self.expires_s = safe_w, safe_w, 0, 0.0

    def receive(self, entry, now_s):
        if entry.sequence > self.sequence and entry.expires_s > now_s:
            self.sequence, self.cap_w, self.expires_s = entry.sequence, entry.cap_w, entry.expires_s

    def power_w(self, now_s):
        return self.cap_w if self.expires_s > now_s else self.safe_w


def assert_within(nodes, now_s):
    for budget in BUDGETS:
        assert sum(nodes[n].power_w(now_s) for n in budget.nodes) <= budget.budget_w, budget.zone


@settings(max_examples=300, deadline=None)
@given(st.lists(ROUND, min_size=1, max_size=12))
def test_no_zone_goes_over_budget_under_lost_late_repeated_and_reordered_leases(rounds):
    ledger, nodes, sent, now_s = Ledger(SAFE), {n: Node(SAFE[n]) for n in NODES}, [], 0.0
    for caps, order, lost, confirmed, replay, wait_s, _ in rounds:
        granted = ledger.grant({n: caps[n] for n in order}, BUDGETS, now_s, now_s + 30.0)
        for node, entry in granted.items():
            assert entry.cap_w <= max(caps[node], SAFE[node])
            sent.append((node, entry))
            if node not in lost:
                nodes[node].receive(entry, now_s)
                if node in confirmed:
                    ledger.confirm(node, entry.sequence)
        assert_within(nodes, now_s)
        for index in replay:
            if sent:
                node, entry = sent[index % len(sent)]
                nodes[node].receive(entry, now_s)
        assert_within(nodes, now_s)
        now_s += wait_s
        assert_within(nodes, now_s)


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
    ledger.confirm("a", lower.sequence)
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
    with pytest.raises(Rejected, match="JSON"):
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
    assert figures["naive_over_budget"] > 0
    assert 0.5 < figures["budget_use_mean"] <= 1.0
