"""The carrier finds the newest good lease, whatever lies beside it in the store, with bounded work."""

import base64
import time

import msgspec
import pytest
from tests.rigs.capper_process import KEY, lease

from powerhall.lease import GpuCap, RefusedForNow, SignedLease, node_key, read_unverified
from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.log import Log
from powerhall.store import Query, Select, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_agent.capper.capper import Capper
from powerhall_agent.capper.carrier import Carrier
from powerhall_agent.capper.client import Reply
from powerhall_agent.capper.limiter import Range


class Gpu:
    def __init__(self):
        self.limit_w = 700.0

    def ranges(self):
        return {0: Range(200.0, 700.0)}

    def read(self):
        return (GpuCap(0, self.limit_w),)

    def clocks_mhz(self, gpus):
        return {}

    def apply(self, caps):
        for cap in caps:
            self.limit_w = cap.power_limit_w


class Node:
    """A store, a carrier and a capper in one process; `wall_s` is the node's clock."""

    def __init__(self, folder):
        self.store = open_store(f"sqlite:///{folder}/s.db")
        self.gpu, self.offers, self.ahead_s, self.now_s = Gpu(), [], 0.0, time.time()
        self.capper = Capper(
            self.gpu, node="n1", key=KEY, safe_limit_w=300.0, memory=folder / "memory.json", started_s=1.0
        )
        self.carrier = Carrier(self.store, self.store, self, "n1", Log(quiet=True))

    @property
    def wall_s(self):
        return self.now_s + self.ahead_s

    def alive(self):
        self.capper.heard(self.now_s)
        return Reply(self.capper.status(), "", self.capper.confirmation(self.wall_s))

    def offer(self, signed):
        self.offers.append(signed)
        self.capper.offer(signed, self.wall_s, self.now_s)
        return self.alive()

    def put(self, signed, at_s, hall="h"):
        text = signed if isinstance(signed, str) else base64.b64encode(msgspec.json.encode(signed)).decode()
        tags = {"site": "s", "hall": hall, "node": "n1"}
        self.store.write(encode(Point("lease", tags, {"signed": text}, round(at_s * 1000))))

    def turns(self, number):
        for _ in range(number):
            self.carrier.exchange(self.wall_s, self.now_s)
            self.carrier.turn()


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path)
    yield made
    made.store.close()


def good(node, sequence=5, watts=500.0, ago_s=10.0):
    return lease(sequence, watts=watts, gpus=1, issued_s=node.now_s - ago_s)


def of_another_key(node, sequence):
    return lease(sequence, gpus=1, issued_s=node.now_s, key=node_key(bytes(range(32)), "n2"))


BAD = {
    "no base64": lambda node: "???",
    "no JSON": lambda node: base64.b64encode(b"\xff\xfe").decode(),
    "a body of noise": lambda node: SignedLease(b"\xff" * 40, "0" * 64),
    "a lone surrogate": lambda node: base64.b64encode(b'{"body":"AAAA","signature":"\\ud800"}').decode(),
    "another node's": lambda node: of_another_key(node, 99),
    "a wrong signature": lambda node: SignedLease(good(node).body, "0" * 64),
    "a huge text": lambda node: "A" * 200_000,
    "issued tomorrow": lambda node: lease(99, gpus=1, issued_s=node.now_s + 80_000.0),
    "deep": lambda node: base64.b64encode(b'{"body":' + b"[" * 3000).decode(),
}


@pytest.mark.parametrize("ahead_s", [-5.0, 30.0, 3000.0, 80_000.0])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_point_beside_it_does_not_hide_a_good_lease(node, bad, ahead_s):
    node.put(good(node), node.now_s - 10.0)
    node.put(bad(node), node.now_s + ahead_s)
    node.turns(2)
    assert node.gpu.limit_w == 500.0


def test_six_hundred_bad_points_do_not_hide_it_and_are_offered_a_few_at_a_time(node):
    node.put(good(node), node.now_s - 10.0)
    for number in range(600):
        node.put(of_another_key(node, 1000 + number), node.now_s - 9.0 + 0.01 * number)
    before = 0
    for _turn in range(120):
        node.turns(1)
        assert len(node.offers) - before <= 8
        before = len(node.offers)
        if node.gpu.limit_w == 500.0:
            break
    assert node.gpu.limit_w == 500.0
    assert len(node.offers) <= 601


def test_the_newest_of_several_is_taken_and_one_under_a_forged_number_costs_one_offer(node):
    for sequence, watts in ((5, 500.0), (6, 600.0), (7, 400.0)):
        node.put(good(node, sequence, watts), node.now_s - 30.0 + sequence)
    node.put(of_another_key(node, 1 << 52), node.now_s)
    node.turns(3)
    assert node.gpu.limit_w == 400.0
    assert len(node.offers) == 2


@pytest.mark.parametrize("ahead_s", [0.0, 20.0, 3000.0, 80_000.0])
def test_copies_of_the_lease_in_force_under_a_later_time_do_not_hide_the_next_one(node, ahead_s):
    first = good(node, 5, 450.0, ago_s=20.0)
    node.put(first, node.now_s - 20.0)
    node.turns(2)
    node.put(good(node, 6), node.now_s - 10.0)
    for number in range(30):
        node.put(first, node.now_s + ahead_s + number)
    node.turns(2)
    assert node.gpu.limit_w == 500.0


def test_a_point_overwritten_with_a_damaged_copy_leaves_the_lease_before(node):
    node.put(good(node, 5, 450.0), node.now_s - 20.0)
    newer = good(node, 6)
    node.put(SignedLease(newer.body.replace(b"500.0", b"700.0"), newer.signature), node.now_s - 10.0)
    node.turns(2)
    assert node.gpu.limit_w == 450.0


def test_a_lease_refused_for_a_slow_clock_is_taken_when_the_clock_is_mended(node):
    node.ahead_s = -3600.0
    node.put(good(node, ago_s=0.0), node.now_s)
    node.turns(3)
    assert node.gpu.limit_w == 300.0
    node.ahead_s = 0.0
    node.turns(1)
    assert node.gpu.limit_w == 500.0


def test_a_lease_refused_without_a_key_is_taken_when_there_is_one(node):
    node.capper.key = None
    node.put(good(node), node.now_s - 10.0)
    node.turns(2)
    with pytest.raises(RefusedForNow, match="no node key"):
        node.offer(good(node))
    node.capper.key = KEY
    node.turns(1)
    assert node.gpu.limit_w == 500.0


def test_in_a_quiet_time_no_lease_is_offered_again_and_two_points_are_read(node, monkeypatch):
    for sequence in range(20):
        node.put(good(node, sequence + 1, ago_s=100.0 - sequence), node.now_s - 100.0 + sequence)
    node.turns(2)
    assert len(node.offers) == 1
    limits = []
    query = node.store.query
    monkeypatch.setattr(node.store, "query", lambda asked, *when: limits.append(asked.limit) or query(asked, *when))
    node.turns(5)
    assert len(node.offers) == 1
    assert limits == [2] * 5


def test_what_a_lease_says_is_read_with_the_same_limits_as_a_verified_one():
    with pytest.raises(Rejected, match="bytes"):
        read_unverified(SignedLease(b"[" * 100_000, ""))


def reports(node):
    fields = ("up", "leased", "alarms", "reason", "detail")
    query = Query("capper", tuple(Select(field) for field in fields), {"node": "n1"})
    return [[row.values[field] for field in fields] for row in node.store.query(query, 0.0, node.now_s + 1e6)]


def test_the_store_holds_why_a_node_is_at_its_safe_caps(node):
    node.turns(1)
    node.turns(1)
    assert reports(node) == [[1.0, 0.0, 0.0, "start", "-"]]
    node.capper.key, node.capper.key_problem = None, "node.key: cannot read the key: it is absent"
    node.put(good(node), node.now_s - 10.0)
    node.now_s += 6.0
    node.turns(2)
    node.now_s += 6.0
    node.turns(1)
    up, leased, alarms, reason, detail = reports(node)[-1]
    assert (up, leased, alarms, reason) == (1.0, 0.0, 2.0, "start")
    assert "it is absent" in detail
    assert "refused for now: lease: no node key" in detail


def test_a_capper_that_does_not_answer_is_told_within_seconds_and_its_return_too(node, monkeypatch):
    node.put(good(node), node.now_s - 10.0)
    node.turns(2)
    node.now_s += 6.0
    node.turns(1)
    assert reports(node)[-1] == [1.0, 1.0, 0.0, "lease", "-"]
    alive = node.alive

    def silent():
        raise Retryable("capper: capper.sock: connection refused")

    monkeypatch.setattr(node, "alive", silent)
    node.now_s += 6.0
    node.turns(1)
    node.carrier.exchange(node.wall_s, node.now_s + 6.0)
    assert reports(node)[-1] == [0.0, 0.0, 1.0, "unreachable", "capper: capper.sock: connection refused"]
    monkeypatch.setattr(node, "alive", alive)
    node.now_s += 12.0
    node.turns(2)
    node.now_s += 6.0
    node.turns(1)
    assert reports(node)[-1][0] == 1.0


def test_in_a_quiet_hour_one_point_a_minute_is_written(node):
    for _ in range(1800):
        node.now_s += 2.0
        node.capper.tick(node.now_s)
        node.carrier.turn()
        node.carrier.exchange(node.wall_s, node.now_s)
    assert 58 <= len(reports(node)) <= 62


def test_an_answer_that_meets_a_defect_is_told_and_the_next_lease_is_read(node, monkeypatch):
    """It ended the thread that reads leases, while the heartbeats went on."""
    query = node.store.query
    monkeypatch.setattr(node.store, "query", lambda *_: int("x"))
    node.carrier.turn()
    assert not node.carrier.exchange(node.wall_s, node.now_s)
    monkeypatch.setattr(node.store, "query", query)
    node.put(good(node), node.now_s - 10.0)
    node.turns(1)
    assert node.gpu.limit_w == 500.0


def test_a_store_of_leases_that_does_not_answer_is_told_where_the_other_one_does(node, tmp_path, monkeypatch):
    def broken(*_asked):
        raise Retryable("leases: no route")

    plans = open_store(f"sqlite:///{tmp_path}/plans.db")
    monkeypatch.setattr(plans, "query", broken)
    carrier = Carrier(plans, node.store, node, "n1", Log(quiet=True))
    carrier.turn()
    assert not carrier.exchange(node.wall_s, node.now_s)
    plans.close()
    assert reports(node)[-1][2:] == [1.0, "start", "leases: no route"]
