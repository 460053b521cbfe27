"""Time from the shed command to the last cap written, by stage, with thousands of simulated nodes.

A synthetic site of 8-GPU nodes runs gangs of 1 to 64 nodes, a fifth of them protected; every node holds a lease of the
plan. The shed reads plan.json, builds the ladder, takes the rungs for a 30 % cut, signs a lease per touched node and
writes all of them to the store (SQLite on local disk); then every node's carrier reads its lease and its capper checks
and applies it on simulated GPUs. The nodes work one after the other here, so their sum is an upper bound: on a real
site they work at the same time. Carriers poll the store every 2 s by default; the figures leave this wait out.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from powerhall.jobs import Job
from powerhall.lease import GpuCap, node_key
from powerhall.physics.plants.plant import Plant
from powerhall.plan.plan import PLAN_VERSION, Assignment, Placement, Plan, Snapshot, snapshot_hash, write_plan
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.store import Store, open_store
from powerhall_agent.capper.capper import Capper
from powerhall_agent.capper.carrier import newest_lease
from powerhall_agent.capper.limiter import Range
from powerhall_optimizer.leases.caps import safe_caps_w
from powerhall_optimizer.leases.grant_cycle import GrantCycle
from powerhall_optimizer.leases.ledger import Ledger
from powerhall_optimizer.leases.plan_in_force import present_plan
from powerhall_optimizer.shed.ladder import ladder
from powerhall_optimizer.shed.shedder import Shedder

SITE_KEY = bytes(range(32))
MODES = tuple(
    Mode(f"p{limit}", "power_limit", limit + 500.0, speed, float(limit))
    for limit, speed in ((700, 1.0), (550, 0.95), (400, 0.84), (250, 0.62))
)


class Gpus:
    """Eight simulated GPUs behind the limiter's interface."""

    def __init__(self) -> None:
        self.caps = dict.fromkeys(range(8), 700.0)

    def ranges(self) -> dict[int, Range]:
        return {gpu: Range(200.0, 700.0) for gpu in self.caps}

    def read(self) -> tuple[GpuCap, ...]:
        return tuple(GpuCap(gpu, watts) for gpu, watts in self.caps.items())

    def clocks_mhz(self, gpus: Sequence[int]) -> dict[int, float]:
        return dict.fromkeys(gpus, 0.0)

    def apply(self, caps: tuple[GpuCap, ...]) -> None:
        for cap in caps:
            if cap.power_limit_w is not None:
                self.caps[cap.gpu] = cap.power_limit_w


def site(nodes: int) -> Site:
    """Halls of 1,000 nodes, 8 nodes a rack."""
    kind = NodeType("h100", "H100", 8, 2100.0, 10_200.0, 3500.0, 0.0, MODES)
    halls = []
    for h in range(-(-nodes // 1000)):
        count = min(1000, nodes - 1000 * h)
        racks = tuple(
            Rack(f"h{h}/r/k{k}", "h100", tuple(f"h{h}-k{k}-n{n}" for n in range(min(8, count - 8 * k))))
            for k in range(-(-count // 8))
        )
        plant = Plant("p", "fixed", 14e6, fan_power_w=2e5)
        halls.append(Hall(f"h{h}", (RackRow(f"h{h}/r", racks),), (plant,), Losses(0.0, 0.04)))
    return Site("bench", tuple(halls), {"h100": kind}, power_limit_w=nodes * 13_000.0)


def plan(nodes: int, seed: int, now_s: int) -> Plan:
    """Build a plan with every node busy at full power."""
    place, rng = site(nodes), random.Random(seed)
    jobs, assignments = [], []
    for hall in place.halls:
        free = [(rack.zone, node) for rack in hall.racks() for node in rack.nodes]
        while free:
            size = min(len(free), 2 ** rng.randint(0, 6))
            taken, free = free[:size], free[size:]
            name = f"j{len(jobs)}"
            protected = rng.random() < 0.2
            state = {
                "state": "running",
                "hall": hall.zone,
                "node_type": "h100",
                "mode": "p700",
                "start_s": now_s - 600.0,
            }
            names = ",".join(node for _, node in taken)
            job = Job(
                name, 8 * size, 7200.0, preemptible=not protected, checkpoint_cost_s=60.0, weight=rng.uniform(1, 9)
            )
            jobs.append(Job(**{k: getattr(job, k) for k in job.__struct_fields__} | state | {"nodes": names}))
            spots = tuple(Placement(zone, node, 8) for zone, node in taken)
            end_s = now_s - 600 + 7200
            assignments.append(
                Assignment(name, hall.zone, "h100", "p700", 8 * size, 1200.0, now_s - 600, end_s, spots, True)
            )
    snapshot = Snapshot(now_s, now_s, 300, 24, place, tuple(jobs))
    return Plan(
        PLAN_VERSION, snapshot_hash(snapshot), now_s, "feasible", 0, 0, 0.0, tuple(assignments), (), (), snapshot
    )


def deliver(store: Store, cappers: dict[str, Capper], held: dict[str, bytes]) -> tuple[float, float]:
    """Each node's carrier and capper; `held` is what each took last. Returns (sum, slowest) in seconds."""
    total = slowest = 0.0
    for node, capper in cappers.items():
        begin = time.perf_counter()
        signed = newest_lease(store, node, time.time())
        if signed is not None and signed.body != held.get(node):
            capper.offer(signed, time.time(), time.monotonic())
            held[node] = signed.body
        took = time.perf_counter() - begin
        total, slowest = total + took, max(slowest, took)
    return total, slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="200 nodes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    nodes = 200 if args.quick else args.nodes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        now = plan(nodes, args.seed, int(time.time()) // 300 * 300)
        names = list(SiteIndex.of(now.snapshot.site).rack_of)
        gpus = {node: Gpus() for node in names}
        cappers = {
            node: Capper(
                gpus[node], node=node, key=node_key(SITE_KEY, node), safe_limit_w=300.0, memory=folder / f"{node}.json"
            )
            for node in names
        }
        store = open_store(f"sqlite:///{folder}/store.db")
        ledger = Ledger(safe_caps_w(now.snapshot.site), folder / "ledger.json")
        before = GrantCycle(now, ledger, SITE_KEY, store).run(time.time(), time.time() + 900.0)
        held: dict[str, bytes] = {}
        deliver(store, cappers, held)
        full_w = sum(sum(node.caps.values()) for node in gpus.values())
        write_plan(now, folder / "plan.json")
        begin = time.perf_counter()
        read = present_plan(folder / "plan.json", time.time())
        steps = ladder(read, time.time())
        known = time.perf_counter() - begin
        shedder = Shedder(ledger, store, SITE_KEY, None, folder / "shed.json")
        outcome = shedder.act(read, steps, 0.7 * steps.power_w)
        whole = time.perf_counter() - begin
        handed = known + outcome.seconds
        applied, slowest = deliver(store, cappers, held)
        store.close()
        less_w = full_w - sum(sum(node.caps.values()) for node in gpus.values())
    print(f"{nodes} nodes, {len(now.assignments)} jobs, 30 % of {steps.power_w / 1e6:.2f} MW, seed {args.seed}")
    print(f"{platform.machine()}, Python {platform.python_version()}, SQLite on local disk\n")
    print(f"{'plan read, ladder built':<44}{known:>8.3f} s   {outcome.rungs} of {len(steps.actions)} rungs taken")
    print(
        f"{'leases signed and in the store':<44}{outcome.seconds:>8.3f} s   {outcome.leases} leases, met: {outcome.met}"
    )
    print(f"{'slowest node: read, check, write its caps':<44}{slowest:>8.3f} s")
    each = f"(upper bound; {1e3 * applied / nodes:.2f} ms a node)"
    print(f"{'all nodes, one after the other':<44}{applied:>8.3f} s   {each}")
    less = f"GPU limits down by {less_w / 1e6:.2f} MW"
    print(f"{'command to last cap, nodes at the same time':<44}{handed + slowest:>8.3f} s   {less}")
    print(f"{'shed plan sealed and written, after the leases':<44}{whole - handed:>8.3f} s")
    if args.json:
        figures = {
            "nodes": nodes,
            "seconds_to_last_cap": handed + slowest,
            "seconds_handed_over": handed,
            "seconds_nodes_in_sequence": applied,
            "seconds_shed_plan": whole - handed,
            "leases_before": before["leases"],
            "leases": outcome.leases,
            "met": outcome.met,
        }
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
