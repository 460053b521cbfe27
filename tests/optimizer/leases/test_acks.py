"""Confirmations from cappers to the ledger: valid ones free budget, all others do not."""

import base64
import json
import time

import msgspec
import pytest

from powerhall.lease import Confirmation, GpuCap, SignedConfirmation, node_key, sign_confirmation
from powerhall.plan.plan import write_plan
from powerhall.runtime.errors import Rejected, Retryable
from powerhall.runtime.log import Log
from powerhall.store import open_store
from powerhall.store.line_protocol import Point, encode
from powerhall_agent.capper.capper import Capper
from powerhall_agent.capper.carrier import Carrier
from powerhall_agent.capper.client import Reply
from powerhall_agent.capper.limiter import Range
from powerhall_optimizer.cli import main
from powerhall_optimizer.leases.acks import read_acks
from powerhall_optimizer.leases.caps import cap_requests, safe_caps_w
from powerhall_optimizer.leases.grant_cycle import GrantCycle
from powerhall_optimizer.leases.ledger import Ledger
from rigs.confirmed import confirmed_ledger

KEY = bytes(range(32))


class Gpus:
    """Eight GPUs behind the limiter's interface, in memory."""

    def __init__(self):
        self.caps = dict.fromkeys(range(8), 700.0)

    def ranges(self):
        return {gpu: Range(200.0, 700.0) for gpu in self.caps}

    def read(self):
        return tuple(GpuCap(gpu, watts) for gpu, watts in self.caps.items())

    def clocks_mhz(self, gpus):
        return dict.fromkeys(gpus, 0.0)

    def apply(self, caps):
        self.caps |= {cap.gpu: cap.power_limit_w for cap in caps if cap.power_limit_w is not None}


class Direct:
    """A capper's client without a socket between."""

    def __init__(self, folder, node):
        self.gpus = Gpus()
        memory = folder / f"{node}.json"
        self.capper = Capper(self.gpus, node=node, key=node_key(KEY, node), safe_limit_w=300.0, memory=memory)
        self.refused = 0

    def alive(self):
        self.capper.heard(time.monotonic())
        return Reply(self.capper.status(), "", self.capper.confirmation(time.time()))

    def offer(self, lease):
        try:
            self.capper.offer(lease, time.time(), time.monotonic())
        except Rejected:
            self.refused += 1
            raise
        return self.alive()


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/s.db")
    yield opened
    opened.close()


@pytest.fixture
def site(plan, tmp_path, store):
    """Files of a planner host, and a carrier for every node."""
    write_plan(plan, tmp_path / "plan.json")
    (tmp_path / "site.key").write_text(KEY.hex())
    nodes = safe_caps_w(plan.snapshot.site)
    carriers = {node: Carrier(store, store, Direct(tmp_path, node), node, Log()) for node in nodes}
    options = ["--plan", str(tmp_path / "plan.json"), "--store", f"sqlite:///{tmp_path}/s.db"]
    options += ["--site-key", str(tmp_path / "site.key"), "--ledger", str(tmp_path / "ledger.json")]
    return options, carriers


def exchange(carriers):
    for carrier in carriers.values():
        carrier.exchange(time.time(), time.monotonic())
        carrier.turn()
        carrier.exchange(time.time(), time.monotonic())


def lease(options, capsys, *more):
    assert main(["lease", *options, *more]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture
def squeezed(plan, tmp_path):
    """A ledger in which all busy nodes but four may hold the highest cap from a plan before: no room for the four."""
    safe = safe_caps_w(plan.snapshot.site)
    busy = [need.node for need in cap_requests(plan, time.time(), time.time() + 1)]
    hog = dict.fromkeys(busy[4:], 10_200)
    return Ledger(safe, tmp_path / "ledger.json", site_key=KEY).grant(hog, [], time.time(), time.time() + 900)


@pytest.mark.usefixtures("squeezed")
def test_lowered_caps_free_budget_as_soon_as_nodes_confirm_them(site, capsys):
    options, carriers = site
    first = lease(options, capsys)
    assert first["short"] > 0
    assert lease(options, capsys)["short"] == first["short"], "nothing was confirmed"
    exchange(carriers)
    assert lease(options, capsys)["short"] < first["short"]


@pytest.mark.usefixtures("squeezed")
def test_with_settle_budget_confirmed_while_waiting_is_granted_again(site, capsys, monkeypatch):
    options, carriers = site
    short = lease(options, capsys)["short"]
    monkeypatch.setattr("powerhall_optimizer.commands.lease.time.sleep", lambda _s: exchange(carriers))
    assert lease(options, capsys, "--settle", "5 s")["short"] < short


@pytest.mark.parametrize("kind", ["lost", "damaged"])
def test_after_a_lost_ledger_nodes_get_their_caps_back_as_they_confirm(site, tmp_path, capsys, monkeypatch, kind):
    options, carriers = site
    full = lease(options, capsys)
    exchange(carriers)
    leased = {node for node, one in carriers.items() if one._client.capper.status().state == "leased"}
    if kind == "lost":
        (tmp_path / "ledger.json").unlink()
    else:
        (tmp_path / "ledger.json").write_bytes(b"\xff")
    gone = set(list(carriers)[:2])  # two nodes do not answer
    monkeypatch.setattr(
        "powerhall_optimizer.commands.lease.time.sleep",
        lambda _s: exchange({node: one for node, one in carriers.items() if node not in gone}),
    )
    again = lease(options, capsys, "--settle", "5 s")
    assert again["unknown"] == len(gone), "they count at their highest power until their old leases have run out"
    assert again["short"] <= full["short"] + len(gone) + 4, "and their power is not given to others"
    exchange({node: one for node, one in carriers.items() if node not in gone})
    assert len({n for n in leased - gone if carriers[n]._client.gpus.caps[0] > 300.0}) >= len(leased - gone) - 4


def test_a_damaged_or_future_confirmation_does_not_hide_a_good_one(plan, store):
    nodes = safe_caps_w(plan.snapshot.site)
    node = next(iter(nodes))
    good = base64.b64encode(msgspec.json.encode(sign_confirmation(Confirmation(node, 7, 0.0), node_key(KEY, node))))
    for ahead_s, text in ((-5.0, good.decode()), (-1.0, "garbage"), (50.0, "more"), (3000.0, good.decode()[:-8])):
        fields = {"sequence": 9e9, "signed": text}
        store.write(encode(Point("lease_confirmation", {"node": node}, fields, int((time.time() + ahead_s) * 1000))))
    assert read_acks(store, KEY, nodes, time.time()).sequences == {node: 7}


@pytest.mark.parametrize("count", [3, 5, 40])
def test_confirmations_of_a_clock_that_was_ahead_do_not_hide_those_of_the_present(plan, store, count):
    node, now_s = min(safe_caps_w(plan.snapshot.site)), time.time()

    def confirm(sequence, at_s):
        signed = sign_confirmation(Confirmation(node, sequence, at_s), node_key(KEY, node))
        text = base64.b64encode(msgspec.json.encode(signed)).decode()
        fields = {"sequence": float(sequence), "signed": text}
        store.write(encode(Point("lease_confirmation", {"node": node}, fields, round(at_s * 1000))))

    for number in range(count):
        confirm(7, now_s + 1800.0 + number)
    confirm(8, now_s - 1.0)
    assert read_acks(store, KEY, [node], now_s).sequences == {node: 8}


def test_a_forged_or_damaged_confirmation_frees_nothing(plan, store):
    nodes = safe_caps_w(plan.snapshot.site)
    one, two, three, four = list(nodes)[:4]

    def put(node, text):
        point = Point("lease_confirmation", {"node": node}, {"sequence": 1.0, "signed": text}, int(time.time() * 1000))
        store.write(encode(point))

    def packed(signed):
        return base64.b64encode(msgspec.json.encode(signed)).decode()

    put(one, packed(sign_confirmation(Confirmation(one, 99, 0.0), node_key(KEY, two))))  # with another node's key
    put(two, packed(SignedConfirmation(msgspec.json.encode(Confirmation(two, 99, 0.0)), "0" * 64)))
    put(three, "not base64 at all!")
    put(four, packed(sign_confirmation(Confirmation(four, 7, 0.0), node_key(KEY, four))))
    put("stranger", packed(sign_confirmation(Confirmation("stranger", 7, 0.0), node_key(KEY, "stranger"))))
    told = read_acks(store, KEY, nodes, time.time())
    assert (told.sequences, told.refused) == ({four: 7}, 3)


class Broken:
    """A store that does not answer."""

    def query(self, *_):
        raise Retryable("store: away")

    write = query


def test_the_agent_stays_alive_to_the_capper_while_the_store_is_away(plan, tmp_path):
    node = next(iter(safe_caps_w(plan.snapshot.site)))
    client = Direct(tmp_path, node)
    carrier = Carrier(Broken(), Broken(), client, node, Log())
    assert not carrier.exchange(time.time(), time.monotonic())
    carrier.turn()
    assert client.capper._heard_s is not None


def test_a_lease_that_the_capper_gave_up_is_offered_again_and_a_refused_one_is_not(plan, site, store, capsys):
    options, carriers = site
    lease(options, capsys)
    exchange(carriers)
    node = next(node for node, carrier in carriers.items() if carrier._client.capper.status().state == "leased")
    capper = carriers[node]._client.capper
    capper.tick(time.monotonic() + 2.0)
    assert capper.status().reason == "agent_silent"
    carriers[node].turn()
    assert capper.status().state == "leased"
    bad = next(name for name, carrier in carriers.items() if name != node)
    carriers[bad]._newest = carriers[node]._newest  # another node's lease
    for _ in range(3):
        carriers[bad].turn()
    assert carriers[bad]._client.refused == 1


def test_an_event_in_force_limits_leases_before_any_round_has_seen_it(plan, site, tmp_path, capsys):
    options, carriers = site
    confirmed_ledger(tmp_path / "ledger.json", carriers)
    calm = lease([*options[:-1], str(confirmed_ledger(tmp_path / "other.json", carriers))], capsys)
    safe_w = sum(safe_caps_w(plan.snapshot.site).values())
    limit_w = 1.25 * safe_w
    events = [{"start": time.time() - 10, "duration": "1 h", "power_limit": f"{limit_w:.0f} W", "event_id": "e1"}]
    (tmp_path / "events.json").write_text(json.dumps(events))
    cut = lease(options, capsys, "--events", str(tmp_path / "events.json"))
    assert cut["cap_w"] < calm["cap_w"]
    ledger = Ledger(safe_caps_w(plan.snapshot.site), tmp_path / "ledger.json", site_key=KEY)
    assert sum(ledger.exposure_w(node, time.time()) for node in ledger.safe_caps_w) <= limit_w
    events[0]["power_limit"] = "1 W"
    (tmp_path / "events.json").write_text(json.dumps(events))
    none = lease(options, capsys, "--events", str(tmp_path / "events.json"))
    assert "nothing is raised" in none["note"]


def test_a_dead_carrier_is_told_two_minutes_after_its_lease(plan, site, store, tmp_path):
    _, carriers = site
    now_s, path = time.time(), tmp_path / "silent.json"
    cycle = GrantCycle(plan, Ledger(safe_caps_w(plan.snapshot.site), path), KEY, store)
    assert cycle.run(now_s, now_s + 900.0)["silent"] == 0
    leased = sorted(cycle.ledger.state.entries)
    assert cycle.ledger.silent({}, now_s + 115.0) == set()
    assert cycle.ledger.silent({}, now_s + 125.0) == set(leased)
    exchange({node: carrier for node, carrier in carriers.items() if node != leased[0]})
    later = GrantCycle(plan, Ledger(safe_caps_w(plan.snapshot.site), path), KEY, store)
    told = [later.run(now_s + after_s, now_s + 1000.0) for after_s in (125.0, 130.0)]
    assert [figures["silent"] for figures in told] == [1, 1], "the second grant of a command does not hide it"
    assert f"1 nodes have not confirmed a lease of two minutes ago or earlier: {leased[0]}" in told[1]["note"]
