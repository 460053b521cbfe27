"""A node that no capper holds yet draws what it likes: it counts at its highest power until its capper confirms."""

import json
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from powerhall_optimizer.leases.budget import Budget
from powerhall_optimizer.leases.ledger import Ledger
from powerhall_optimizer.leases.ledger_file import with_seal

NODES = ("a", "b", "c")
SAFE, MOST = dict.fromkeys(NODES, 100), {"a": 900, "b": 500, "c": 700}
BUDGETS = [Budget("site", 1600.0, NODES), Budget("hall", 1100.0, ("a", "b"))]


class Truth:
    """What a node draws, by rules of its own: anything up to its highest until its capper has begun."""

    def __init__(self, node):
        self.node, self.is_held, self.leases = node, False, []

    def take(self, entry):
        newest = max((sequence for sequence, _, _ in self.leases), default=0)
        if self.is_held and entry.sequence > newest:
            self.leases.append((entry.sequence, entry.cap_w, entry.expires_s))

    def power_w(self, time_s):
        if not self.is_held:
            return MOST[self.node]
        _, cap_w, end_s = self.leases[-1] if self.leases else (0, 0, 0.0)
        return max(SAFE[self.node], cap_w if end_s > time_s else 0)


STEP = st.tuples(
    st.dictionaries(st.sampled_from(NODES), st.integers(100, 900)),
    st.sets(st.sampled_from(NODES)),  # whose capper begins before the leases arrive
    st.sets(st.sampled_from(NODES)),  # whom the leases reach
    st.sets(st.sampled_from(NODES)),  # whose confirmation reaches the ledger
    st.booleans(),  # the ledger is opened anew
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=12))
def test_no_lease_raises_the_sum_above_a_budget_beside_nodes_that_no_capper_holds(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("ledger") / "ledger.json"
    ledger, nodes, now_s = Ledger(SAFE, path, most_w=MOST), {name: Truth(name) for name in NODES}, 1e6
    for wanted, begun, reached, told, is_new in steps:
        ledger = Ledger(SAFE, path, most_w=MOST) if is_new and path.exists() else ledger
        granted = ledger.grant(wanted, BUDGETS, now_s, now_s + 25.0)
        for name in begun:
            nodes[name].is_held = True
        for name in reached & granted.keys():
            nodes[name].take(granted[name])
        check(nodes, now_s)
        ledger.acknowledge({n: nodes[n].leases[-1][0] for n in told if nodes[n].leases}, now_s)
        now_s += 10.0
        check(nodes, now_s)


def check(nodes, now_s):
    for budget in BUDGETS:
        drawn_w = sum(nodes[name].power_w(now_s) for name in budget.nodes)
        without_leases_w = sum(SAFE[n] if nodes[n].is_held else MOST[n] for n in budget.nodes)
        assert drawn_w <= max(budget.budget_w, without_leases_w), budget.zone


def test_the_first_confirmation_of_each_node_frees_the_rest_and_is_remembered(tmp_path):
    path = tmp_path / "ledger.json"
    ledger = Ledger(SAFE, path, most_w=MOST)
    assert ledger.unconfirmed() == set(NODES)
    first = ledger.grant({"a": 900}, BUDGETS, 1e6, 1e6 + 60.0)
    assert first["a"].cap_w == 400, "1,600 W less the highest of b and c"
    assert ledger.acknowledge({"a": first["a"].sequence}, 1e6 + 1.0) == 1
    asked = ledger.lower(SAFE, 1e6 + 1.0, 1e6 + 60.0)
    assert ledger.acknowledge({n: asked[n].sequence for n in "bc"}, 1e6 + 2.0) == 2
    again = Ledger(SAFE, path, most_w=MOST)
    assert again.unconfirmed() == set()
    assert again.grant({"a": 900}, BUDGETS, 1e6 + 3.0, 1e6 + 60.0)["a"].cap_w == 900


def test_a_confirmation_of_a_lease_that_was_never_granted_is_none(tmp_path):
    ledger = Ledger(SAFE, tmp_path / "ledger.json", most_w=MOST)
    ledger.grant({"a": 100}, BUDGETS, 1e6, 1e6 + 60.0)
    assert ledger.acknowledge({"a": ledger.state.sequence + 1}, 1e6) == 0
    assert "a" in ledger.unconfirmed()


def test_a_ledger_of_an_earlier_version_waits_for_one_confirmation_of_each_node(tmp_path):
    path = tmp_path / "ledger.json"
    path.write_bytes(with_seal(json.dumps({"sequence": 7, "time_s": time.time(), "entries": {}}).encode(), b""))
    ledger = Ledger(SAFE, path, most_w=MOST)
    assert ledger.unconfirmed() == set(NODES)
    assert ledger.acknowledge(dict.fromkeys(NODES, 7), time.time()) == 3
    assert ledger.unconfirmed() == set()
