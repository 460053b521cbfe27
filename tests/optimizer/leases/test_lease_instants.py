"""Power at every second of every lease, summed by hand, over random budgets, plans and mishaps of the planner.

Truth is fixed in advance: every budget is a step function of time, a plan knows it up to its horizon. The planner
grants from plans of different ages and horizons, with any `--for`; its ledger is lost, damaged or replaced by an old
copy, its clock steps by minutes and hours, leases arrive, are lost, or come late. Nodes obey only numbers and
expiries: none refuses a lease for its time of issue. Losses, cooling and sums have formulas of their own here.
"""

import base64
import io
import os
import random
from dataclasses import dataclass, field

import msgspec
import pytest

from powerhall.jobs import Job
from powerhall.lease import Confirmation, node_key, sign_confirmation
from powerhall.physics.plants.plant import Plant
from powerhall.plan.plan import PLAN_VERSION, Assignment, Placement, Plan, Snapshot, StoragePlan, snapshot_hash
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.site.storage import Storage
from powerhall.site.topology import Feed, Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.store import Query, Select, open_store
from powerhall.store.line_protocol import Point, encode
from powerhall.timeseries import Series
from powerhall_optimizer.leases import clocks
from powerhall_optimizer.leases.grant import GrantOptions, grant

KEY = bytes(range(32))
BEGIN_S = 1_790_000_100
SLOT_S = 60
SAFE_W, MAX_W, COP, PLANT_W, LINEAR = 2_000, 10_000, 5.0, 90_000.0, 0.05
MODES = tuple(
    Mode(f"p{limit}", "power_limit", limit + 500.0, speed, float(limit))
    for limit, speed in ((700, 1.0), (500, 0.9), (300, 0.7))
)
KIND = NodeType("h", "H", 8, 1_000.0, float(MAX_W), float(SAFE_W), 0.0, MODES)
RACKS = {"a/r/k0": 3, "a/r/k1": 3, "b/r/k0": 3}
NODES = [f"{zone.replace('/', '-')}-n{n}" for zone, count in RACKS.items() for n in range(count)]
UNDER = {
    "s": NODES,
    "F": NODES[:6],
    "a": NODES[:6],
    "a/r": NODES[:6],
    "b": NODES[6:],
    "a/r/k0": NODES[:3],
    "a/r/k1": NODES[3:6],
    "b/r/k0": NODES[6:],
}


@dataclass
class Truth:
    """Budgets as step functions, and a battery that delivers until it is empty."""

    steps: dict[str, list[tuple[float, float]]]
    battery_until_s: float

    @classmethod
    def draw(cls, rng):
        steps = {}
        for zone, nodes in UNDER.items():
            least = 1.5 * SAFE_W * len(nodes) + (30_000 if zone == "s" else 0)
            times = sorted(BEGIN_S + 60 * rng.randint(1, 110) for _ in range(rng.randint(0, 5)))
            draw = [rng.uniform(least, 12_000 * len(nodes)) for _ in range(len(times) + 1)]
            steps[zone] = list(zip([0.0, *times], draw, strict=True))
        return cls(steps, BEGIN_S + 60 * rng.randint(0, 100))

    def budget_w(self, zone, time_s):
        return [watts for at_s, watts in self.steps[zone] if at_s <= time_s][-1]

    def battery_w(self, time_s):
        return 8_000 if time_s < self.battery_until_s else 0

    def broken(self, caps_w, time_s):
        """The zones that these node powers exceed."""
        found = []
        for zone, nodes in UNDER.items():
            load = sum(caps_w[node] for node in nodes)
            if zone == "s":
                load = sum(meter_w(sum(caps_w[node] for node in UNDER[hall])) for hall in "ab")
            if zone in ("s", "F"):
                load -= self.battery_w(time_s)
            if load > self.budget_w(zone, time_s) + 1.0:
                found.append((zone, load, self.budget_w(zone, time_s)))
        found += [(h, "heat") for h in "ab" if sum(caps_w[n] for n in UNDER[h]) * (1 + LINEAR) > PLANT_W + 1.0]
        return found


def meter_w(it_w):
    """Power at the meter of a hall: IT, linear losses, a chiller at part load."""
    heat_w = it_w * (1 + LINEAR)
    load = heat_w / PLANT_W
    return heat_w + PLANT_W / COP * (load + load * load) / 2


def site(truth):
    plant = Plant("p", "fixed", PLANT_W, cop=COP)
    rows = {"a": [], "b": []}
    for zone, count in RACKS.items():
        rows[zone[0]].append(Rack(zone, "h", tuple(f"{zone.replace('/', '-')}-n{n}" for n in range(count))))
    halls = tuple(
        Hall(h, (RackRow(f"{h}/r", tuple(racks)),), (plant,), Losses(0.0, LINEAR)) for h, racks in rows.items()
    )
    budgets = {zone: Series(*map(tuple, zip(*steps, strict=True))) for zone, steps in truth.steps.items()}
    feeds = (Feed("F", ("a",), 1e6),)
    battery = Storage("bess", "battery", "F", 8_000, 8_000, 1e9, 1e9, 0.0)
    return Site("s", halls, {"h": KIND}, feeds=feeds, power_limit_w=1e6, budgets=budgets, storages=(battery,))


def plan(rng, truth, created_s, start_s, slots):
    """A plan in which most nodes run a job; it need not fit: leases have to."""
    jobs, runs = [], []
    for number, (zone, node) in enumerate((z, n) for z, names in UNDER.items() if z.count("/") == 2 for n in names):
        if rng.random() < 0.2:
            continue
        mode = rng.choice(MODES)
        jobs.append(Job(f"j{number}", 8, 7200.0, weight=rng.uniform(1, 9), preemptible=rng.random() < 0.7))
        spot = (Placement(zone, node, 8),)
        end_s = start_s + SLOT_S * rng.randint(5, 200)
        power_w = mode.gpu_power_w
        runs.append(Assignment(f"j{number}", zone[0], "h", mode.name, 8, power_w, start_s, end_s, spot, True))
    snapshot = Snapshot(start_s, start_s, SLOT_S, slots, site(truth), tuple(jobs))
    battery = tuple(int(truth.battery_w(start_s + SLOT_S * k)) for k in range(slots))
    stored = (StoragePlan("bess", battery, (0,) * (slots + 1)),)
    base = Plan(PLAN_VERSION, "", created_s, "feasible", 0, 0, 0.0, tuple(runs), (), (), snapshot, storages=stored)
    return msgspec.structs.replace(base, plan_id=snapshot_hash(snapshot))


@dataclass
class Node:
    """Obeys numbers and expiries, by the true clock or one a little slow; draws its cap."""

    name: str
    skew_s: float
    sequence: int = 0
    cap_w: float = SAFE_W
    expires_s: float = 0.0

    def power_w(self, time_s):
        return max(SAFE_W, self.cap_w) if time_s < self.expires_s + self.skew_s else SAFE_W

    def worst_w(self, sent, time_s):
        """The most that it may draw if any lease that was ever sent and is not replaced arrives right now."""
        late = [
            e["node_cap_w"] for e in sent if e["sequence"] > self.sequence and e["expires_s"] + self.skew_s > time_s
        ]
        return max(self.power_w(time_s), *late, 0)

    def receive(self, lease, time_s):
        if lease["sequence"] > self.sequence and lease["expires_s"] > time_s:
            self.sequence, self.cap_w, self.expires_s = lease["sequence"], lease["node_cap_w"], lease["expires_s"]


@dataclass
class World:
    """The true clock, the planner's offset from it, the nodes, and everything that was ever sent."""

    folder: object
    rng: random.Random
    truth: Truth
    now_s: float = float(BEGIN_S)
    offset_s: float = 0.0
    nodes: dict = field(default_factory=dict)
    sent: list = field(default_factory=list)
    seen: set = field(default_factory=set)
    granted: int = 0
    above_safe: int = 0

    def __post_init__(self):
        self.nodes = {name: Node(name, self.rng.uniform(0.0, 0.9)) for name in NODES}
        self.store = open_store(f"sqlite:///{self.folder}/s.db")

    def report(self):
        """Nodes confirm what they hold, some of them, at their own time."""
        lines = []
        for node in self.nodes.values():
            if self.rng.random() < 0.7:
                word = sign_confirmation(Confirmation(node.name, node.sequence, self.now_s), node_key(KEY, node.name))
                fields = {
                    "sequence": float(node.sequence),
                    "signed": base64.b64encode(msgspec.json.encode(word)).decode(),
                }
                lines.append(encode(Point("lease_confirmation", {"node": node.name}, fields, int(self.now_s * 1000))))
        self.store.write(b"".join(lines))

    def grant(self, asked, span_s):
        """One `lease` command; returns whether it granted."""
        options = GrantOptions(self.folder / "ledger.json", span_s, 0.0, clock=lambda: self.now_s + self.offset_s)
        try:
            grant(asked, KEY, self.store, options, events=(), log=Log(io.StringIO()))
        except Rejected:
            return False
        self.granted += 1
        rows = self.store.query(Query("lease", (Select("signed"),), group_by=("node",)), 0.0, 4e9)
        new = [row.values["signed"] for row in rows if row.values["signed"] not in self.seen]
        self.seen |= set(new)
        for text in new:
            body = _body(text)
            self.sent.append(body)
            self.above_safe += body["node_cap_w"] > SAFE_W
        self.deliver(len(new))
        return True

    def deliver(self, newest):
        for lease in self.sent[len(self.sent) - newest :]:
            if self.rng.random() < 0.8:
                self.nodes[lease["node"]].receive(lease, self.now_s)
        for lease in self.rng.sample(self.sent, min(len(self.sent), 4)):  # late or again
            self.nodes[lease["node"]].receive(lease, self.now_s)

    def pass_time(self, seconds):
        """Every second of it: the power of all nodes, and the worst that leases under way could make of it."""
        alive = {name: [e for e in self.sent if e["node"] == name and e["expires_s"] > self.now_s] for name in NODES}
        for _ in range(seconds):
            self.now_s += 1.0
            caps = {node.name: node.worst_w(alive[node.name], self.now_s) for node in self.nodes.values()}
            assert not self.truth.broken(caps, self.now_s), (self.now_s - BEGIN_S, self.truth.broken(caps, self.now_s))


def _body(text):
    signed = msgspec.json.decode(base64.b64decode(text))
    return msgspec.json.decode(base64.b64decode(signed["body"]))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


def mishap(world, rng, ledgers):
    """Something goes wrong with the planner's host before a command."""
    path = world.folder / "ledger.json"
    kind = rng.choice(("none", "none", "none", "lost", "damaged", "old", "clock", "clock", "back"))
    if path.exists():
        ledgers.append(path.read_bytes())
    if kind == "lost":
        path.unlink(missing_ok=True)
    elif kind == "damaged" and ledgers:
        body = rng.choice(ledgers)
        path.write_bytes(rng.choice((body[: len(body) // 2], b"\xff" + body, b"", b'{"sequence": 1e999}', b"[" * 9999)))
    elif kind == "old" and ledgers:
        path.write_bytes(rng.choice(ledgers))
    elif kind == "clock":
        world.offset_s = rng.choice((1200.0, 3600.0, -1200.0, 300.0, 45.0))
    elif kind == "back":
        world.offset_s = 0.0
    return kind


@pytest.mark.parametrize("seed", range(24))
def test_no_budget_is_exceeded_at_any_second_of_any_lease(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    truth = Truth.draw(rng)
    world = World(tmp_path, rng, truth)
    host = lambda _cls, wall_s: clocks.Host(wall_s, world.now_s - BEGIN_S + 5_000.0, "boot")  # noqa: E731
    monkeypatch.setattr(clocks.Host, "now", classmethod(host))
    plans, ledgers = [], []
    for turn in range(12):
        start_s = int(world.now_s + min(0.0, world.offset_s)) // SLOT_S * SLOT_S
        plans.append(plan(rng, truth, int(world.now_s), start_s, rng.choice((4, 10, 30, 60))))
        world.report()
        if turn:
            mishap(world, rng, ledgers)
        asked = rng.choice(plans[-3:]) if rng.random() < 0.3 else plans[-1]
        world.grant(asked, rng.choice((60.0, 300.0, 900.0, 1800.0, 8.64e6)))
        if world.offset_s and rng.random() < 0.7:
            world.offset_s = 0.0
        world.pass_time(rng.choice((7, 60, 240, 300)))
    world.store.close()
    assert world.granted
