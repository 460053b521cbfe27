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
from powerhall_optimizer.leases.ledger import Ledger

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
    return Ledger(safe, tmp_path / "ledger.json").grant(hog, [], time.time(), time.time() + 900)


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
    options, _ = site
    calm = lease([*options[:-1], str(tmp_path / "other.json")], capsys)
    safe_w = sum(safe_caps_w(plan.snapshot.site).values())
    limit_w = 1.25 * safe_w
    events = [{"start": time.time() - 10, "duration": "1 h", "power_limit": f"{limit_w:.0f} W", "event_id": "e1"}]
    (tmp_path / "events.json").write_text(json.dumps(events))
    cut = lease(options, capsys, "--events", str(tmp_path / "events.json"))
    assert cut["cap_w"] < calm["cap_w"]
    ledger = Ledger(safe_caps_w(plan.snapshot.site), tmp_path / "ledger.json")
    assert sum(ledger.exposure_w(node, time.time()) for node in ledger.safe_caps_w) <= limit_w
    events[0]["power_limit"] = "1 W"
    (tmp_path / "events.json").write_text(json.dumps(events))
    none = lease(options, capsys, "--events", str(tmp_path / "events.json"))
    assert "nothing is raised" in none["note"]
