"""What makes a ledger doubted: its seal, signed leases and confirmations; and what must not hide or end a doubt."""

import base64
import random
import time

import msgspec
import pytest

from powerhall.lease import Confirmation, Lease, node_key, sign_confirmation, sign_lease
from powerhall.runtime.errors import Rejected
from powerhall.store import open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.leases import acks, evidence
from powerhall_optimizer.leases.acks import read_acks
from powerhall_optimizer.leases.budget import Budget
from powerhall_optimizer.leases.caps import safe_caps_w
from powerhall_optimizer.leases.grant_cycle import GrantCycle
from powerhall_optimizer.leases.ledger import Ledger
from powerhall_optimizer.leases.ledger_file import LedgerFile
from rigs.confirmed import confirmed_ledger

KEY = bytes(range(32))
BUDGETS = [Budget("site", 1000, ("a", "b"))]
SAFE, MOST = {"a": 100, "b": 100}, {"a": 900, "b": 900}


def put(url, *points):
    store = open_store(url)
    store.write(b"".join(map(encode, points)))
    store.close()


def packed(signed):
    return base64.b64encode(msgspec.json.encode(signed)).decode()


def confirmation(node, sequence, at_s=None, signed_s=None):
    at_s = at_s or time.time()
    signed = sign_confirmation(Confirmation(node, sequence, signed_s or at_s), node_key(KEY, node))
    fields = {"signed": packed(signed), "sequence": float(sequence)}
    return Point("lease_confirmation", {"node": node}, fields, round(at_s * 1000))


def bad_confirmation(node, at_s):
    return Point("lease_confirmation", {"node": node}, {"signed": "AAAA", "sequence": 1.0}, round(at_s * 1000))


def lease_point(node, at_s, expires_s, signed="AAAA"):
    fields = {"cap_w": 1.0, "safe_cap_w": 1.0, "expires_s": expires_s, "plan_id": "x", "signed": signed}
    return Point("lease", {"site": "phx", "hall": "phx/a", "node": node}, fields, round(at_s * 1000))


def signed_lease(node, sequence, issued_s, expires_s, at_s=None):
    lease = Lease(node, "p", sequence, issued_s, expires_s, 9000.0, ())
    return lease_point(node, at_s or issued_s, expires_s, packed(sign_lease(lease, node_key(KEY, node))))


def newest_numbers(desk):
    return {node: lease.sequence for node, lease in desk.leases().items()}


def test_no_flipped_bit_of_a_ledger_is_believed(desk):
    confirmed_ledger(desk.ledger, desk.nodes)
    desk.lease()
    good, rng = desk.ledger.read_bytes(), random.Random(1)
    assert LedgerFile(desk.ledger, KEY).read().entries
    path = desk.folder / "flipped.json"
    for _ in range(1000):
        flipped = bytearray(good)
        flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(Rejected):
            LedgerFile(path, KEY).read()


@pytest.mark.parametrize("kind", ["digits", "emptied", "sealed without the key", "sealed with another key"])
def test_a_ledger_that_was_changed_by_hand_counts_every_node_at_its_highest(desk, kind):
    confirmed_ledger(desk.ledger, desk.nodes)
    desk.lease()
    if kind == "digits":
        desk.ledger.write_bytes(desk.ledger.read_bytes().replace(b'"cap_w":9', b'"cap_w":3'))
    elif kind == "emptied":
        state = msgspec.json.decode(desk.ledger.read_bytes())
        desk.ledger.write_bytes(msgspec.json.encode(state | {"entries": {}}))
    else:
        state = LedgerFile(desk.ledger, KEY).read()
        LedgerFile(desk.ledger, b"" if kind == "sealed without the key" else bytes(32)).write(state)
    figures = desk.lease()
    assert figures["unknown"] == len(desk.nodes)
    assert "seal: does not fit" in figures["note"]
    assert desk.held_w(time.time()) == sum(desk.nodes.values())


def test_confirmations_of_higher_numbers_tell_an_old_copy_where_the_store_has_lost_its_leases(desk):
    confirmed_ledger(desk.ledger, desk.nodes)
    copy = desk.ledger.read_bytes()
    desk.lease()
    confirmed = newest_numbers(desk)
    desk.ledger.write_bytes(copy)
    desk.url = f"sqlite:///{desk.folder}/new.db"
    put(desk.url, *(confirmation(node, number) for node, number in confirmed.items()))
    figures = desk.lease()
    assert figures["unknown"] == len(desk.nodes)
    assert f"lacks lease {max(confirmed.values())}, which" in figures["note"]
    assert "lease_ledger" in desk.log
    assert desk.held_w(time.time()) == sum(desk.nodes.values())


def test_an_old_copy_grants_nothing_beside_leases_that_it_lacks(tmp_path):
    path, now_s, told = tmp_path / "ledger.json", 1e6, []
    first = Ledger(SAFE, path, most_w=MOST)
    asked = first.lower(SAFE, now_s, now_s + 60.0)
    first.acknowledge({node: entry.sequence for node, entry in asked.items()}, now_s)
    copy = path.read_bytes()
    held = first.grant({"a": 900}, BUDGETS, now_s + 1.0, now_s + 900.0)["a"]
    path.write_bytes(copy)
    again = Ledger(SAFE, path, most_w=MOST, tell=told.append)
    again.acknowledge({"a": held.sequence}, now_s + 2.0)
    assert again.grant({"b": 900}, BUDGETS, now_s + 3.0, now_s + 900.0)["b"].cap_w == 100
    assert [f"lacks lease {held.sequence}, which a confirmed" in line for line in told] == [True]
    again.acknowledge({"a": held.sequence}, now_s + 4.0)
    assert (len(told), again.unknown(now_s + 3599.0)) == (1, {"a", "b"}), "the old confirmation ends nothing"


def test_an_impossible_number_is_doubted_once_and_its_node_alone_stays_in_doubt():
    ledger, told = Ledger(SAFE, most_w=MOST, tell=(lines := []).append), 1 << 53
    ledger.acknowledge({"a": told}, 1e6)
    asked = ledger.lower(SAFE, 1e6, 1e6 + 60.0)
    ledger.acknowledge({"a": told, "b": asked["b"].sequence}, 1e6 + 1.0)
    assert (len(lines), ledger.unknown(1e6 + 1.0)) == (1, {"a"})
    assert ledger.state.sequence < 1 << 51, "and numbers are not used up"


@pytest.mark.parametrize("kind", ["a minute ahead", "now", "at its own time", "old copies"])
@pytest.mark.parametrize("count", [20, 250])
def test_points_beside_a_lease_do_not_hide_that_an_old_copy_lacks_it(desk, kind, count):
    confirmed_ledger(desk.ledger, desk.nodes)
    copy = desk.ledger.read_bytes()
    desk.lease()
    desk.ledger.write_bytes(copy)
    now_s = time.time()
    at_s = {"a minute ahead": now_s + 60.0, "at its own time": max(one.issued_s for one in desk.leases().values())}
    old = {"signed": packed(sign_lease(Lease("x", "p", 0, 9.0, 1e9, 1.0, ()), node_key(KEY, "x")))}
    extra = old if kind == "old copies" else {}
    put(desk.url, *(lease_point(f"0{i}", at_s.get(kind, now_s), 1.0, **extra) for i in range(count)))
    figures = desk.lease()
    assert figures["unknown"] == len(desk.nodes)
    assert "lacks lease" in figures["note"]


def test_a_flood_of_bad_points_makes_a_ledger_doubted_for_the_store_cannot_tell(desk):
    confirmed_ledger(desk.ledger, desk.nodes)
    desk.lease()
    desk.monkeypatch.setattr(evidence, "_PAGES", (5, 10))
    put(desk.url, *(lease_point(f"x{i}", time.time(), 1.0) for i in range(30)))
    figures = desk.lease()
    assert figures["unknown"] == len(desk.nodes)
    assert "none of the newest 15 lease points in the store is signed" in figures["note"]


@pytest.mark.parametrize("kind", ["an unsigned end", "a store of a backup"])
def test_after_a_loss_nothing_in_the_store_ends_the_doubt_early(desk, kind):
    confirmed_ledger(desk.ledger, desk.nodes)
    desk.lease("--for", "30 min")
    numbers, now_s = newest_numbers(desk), time.time()
    desk.ledger.unlink()
    desk.url = f"sqlite:///{desk.folder}/new.db"
    if kind == "an unsigned end":
        put(desk.url, lease_point("x", now_s - 300.0, 1.0))
    else:
        put(desk.url, signed_lease(min(desk.nodes), 9, now_s - 900.0, now_s - 5.0))
    put(desk.url, *(confirmation(node, numbers.get(node, 9)) for node in desk.nodes))
    figures = desk.lease()
    assert (figures["unknown"], figures["unconfirmed"]) == (len(desk.nodes), 0)
    state = LedgerFile(desk.ledger, KEY).read()
    assert state.unknown_until_s == pytest.approx(now_s + 3600.0, abs=30.0)
    answering = min(newest_numbers(desk))
    put(desk.url, confirmation(answering, newest_numbers(desk)[answering]))
    assert desk.lease()["unknown"] == len(desk.nodes) - 1, "a lease of after the loss is confirmed"


def test_an_old_ledger_may_lack_leases_that_are_longer_than_its_own(desk):
    desk.lease("--for", "2 min")
    desk.change_ledger(lambda state: state | {"time_s": state["time_s"] - 300.0})
    assert "longer than its longest lease" in desk.lease()["note"]
    assert LedgerFile(desk.ledger, KEY).read().unknown_until_s > time.time() + 3500.0


def test_first_begins_a_ledger_beside_confirmations_of_leases_that_have_ended(desk):
    desk.lease()
    numbers = newest_numbers(desk)
    desk.ledger.unlink()
    put(desk.url, *(confirmation(node, number) for node, number in numbers.items()))
    figures = desk.lease("--first")
    assert figures["unknown"] == 0


def test_first_is_not_believed_while_a_lease_above_a_safe_cap_is_in_force(desk):
    """Old confirmations lie beside it: its node counted at its safe cap, and its power was granted to others."""
    now_s = time.time()
    put(desk.url, signed_lease(min(desk.nodes), int(now_s * 1000), now_s - 60.0, now_s + 600.0))
    put(desk.url, *(confirmation(node, int(now_s * 1000)) for node in desk.nodes))
    figures = desk.lease("--first")
    assert figures["unknown"] == len(desk.nodes)
    assert "--first: the store has a lease" in figures["note"]
    assert desk.lease()["unknown"] == len(desk.nodes)


def test_first_numbers_its_leases_above_a_whole_grant_of_which_it_reads_a_part(desk):
    """A grant to many nodes runs ahead of the milliseconds that number it: one to 44,000 by 44 s."""
    now_s = time.time()
    numbers = {node: round(now_s * 1000) + 10_000 + place for place, node in enumerate(sorted(desk.nodes))}
    put(desk.url, *(signed_lease(node, number, now_s - 4.0, now_s - 3.0) for node, number in numbers.items()))
    put(desk.url, *(confirmation(node, number) for node, number in numbers.items()))
    assert desk.lease("--first")["unknown"] == 0
    assert min(newest_numbers(desk).values()) > max(numbers.values())


@pytest.mark.parametrize("sequence", [(1 << 52) - 1, 1 << 52, (1 << 53) - 1])
def test_a_lease_in_the_store_whose_number_is_near_the_end_does_not_use_up_the_ledgers(desk, sequence):
    confirmed_ledger(desk.ledger, desk.nodes)
    now_s = time.time()
    put(desk.url, signed_lease(min(desk.nodes), sequence, now_s - 1.0, now_s + 60.0))
    for _ in range(3):
        figures = desk.lease()
        assert figures["unknown"] == len(desk.nodes)
        assert "damaged" not in figures["note"]


def test_what_would_be_refused_is_never_written(tmp_path):
    path = tmp_path / "ledger.json"
    Ledger(SAFE, path).grant({"a": 100}, [], 1e6, 1e6 + 60.0)
    file = LedgerFile(path)
    file.write(msgspec.structs.replace(file.read(), sequence=(1 << 52) - 1))
    before = path.read_bytes()
    with pytest.raises(Rejected, match="out of range"):
        Ledger(SAFE, path).grant({"a": 100, "b": 100}, [], 1e6, 1e6 + 60.0)
    assert path.read_bytes() == before
    file.read()


@pytest.mark.parametrize("ahead_s", [-1.0, 2.0, 30.0])
@pytest.mark.parametrize("count", [4, 70])
@pytest.mark.parametrize("kind", ["bad", "old copies"])
def test_points_beside_a_confirmation_do_not_hide_it(tmp_path, kind, count, ahead_s):
    url, now_s = f"sqlite:///{tmp_path}/s.db", time.time()
    put(url, confirmation("a", 8, now_s - 60.0 if ahead_s < 5.0 else now_s + 20.0))
    times = [now_s + ahead_s + i / 1000.0 for i in range(count)]
    bad = [
        bad_confirmation("a", at_s) if kind == "bad" else confirmation("a", 7, at_s, now_s - 200.0) for at_s in times
    ]
    put(url, *bad)
    store = open_store(url)
    assert read_acks(store, KEY, ["a", "b"], now_s).sequences == {"a": 8}
    store.close()


def test_a_flood_of_bad_confirmations_ends_at_a_bound_and_frees_nothing(tmp_path, monkeypatch):
    url, now_s, asked = f"sqlite:///{tmp_path}/s.db", time.time(), []
    put(url, confirmation("a", 8, now_s - 60.0), confirmation("b", 9, now_s - 60.0))
    put(url, *(bad_confirmation("a", now_s - 30.0 + i / 1000.0) for i in range(600)))
    store = open_store(url)
    query = store.query
    monkeypatch.setattr(store, "query", lambda one, *span: asked.append(one) or query(one, *span))
    assert read_acks(store, KEY, ["a", "b"], now_s).sequences == {"b": 9}
    assert [one.limit for one in asked] == [*acks._PAGES, acks._PAGES[0]]
    assert asked[1].where == {"node": ("a",)}, "the others are not read again"
    store.close()


def test_a_first_grant_with_all_that_was_asked_for_does_not_read_as_a_fault(plan):
    safe = safe_caps_w(plan.snapshot.site)
    now_s = time.time()
    figures = GrantCycle(plan, Ledger(safe, most_w=safe), KEY, None).run(now_s, now_s + 900.0)
    assert (figures["short"], figures["unconfirmed"]) == (0, len(safe))
    assert figures["note"].startswith("every node got what it asked for; new to this ledger")
