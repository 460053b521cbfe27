"""Small random sites with blocks, and the exact optimum of their queue with every job on nodes of its own.

The model shares nothing with the optimizer: one Boolean per job and start, one per node that it takes there, and one
whole number per block for its parts. Sites have one power mode and no limit of power that binds, so that nodes and
blocks alone decide.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from ortools.sat.python import cp_model

from powerhall.hostlist import compress, expand
from powerhall.jobs import Job
from powerhall.plan.plan import Snapshot
from powerhall.site.topology import Block, BlockLevel, Hall, Losses, Mode, NodeType, Rack, RackRow, Site

__all__ = ["Run", "block_site", "exact_runs"]

START_S = 1_700_000_100


@dataclass(frozen=True)
class Run:
    """A job that runs in the optimum: where and from which slot."""

    job: int
    hall: str
    start: int
    value: int


def block_site(draw: random.Random) -> Snapshot:
    """Return a site of one or two halls with uneven racks, odd NVLink domains, drained nodes and running jobs."""
    kind = NodeType("gb", "X", 4, 1000.0, 6000.0, 1000.0, 0.0, (Mode("full", "power_limit", 1500.0, 1.0),))
    halls = tuple(_hall(draw, f"h{number}") for number in range(draw.choice([1, 1, 2])))
    nodes = [node for hall in halls for rack in hall.racks() for node in rack.nodes]
    site = Site("s1", halls, {"gb": kind}, levels=(_domains(draw, halls),))
    down = tuple(draw.sample(nodes, draw.choice([0, 0, 1, 2])))
    slots = draw.randint(3, 6)
    running = tuple(_running(draw, site, set(down), slots))
    jobs = tuple(_job(draw, number, slots) for number in range(draw.randint(4, 8)))
    return Snapshot(START_S, START_S, 300, slots, site, (*running, *jobs), down_nodes=down)


def _hall(draw: random.Random, zone: str) -> Hall:
    rows = []
    for row in range(draw.randint(1, 2)):
        racks = []
        for rack in range(draw.randint(1, 2)):
            names = tuple(f"{zone}r{row}k{rack}n{i}" for i in range(draw.randint(2, 5)))
            racks.append(Rack(f"{zone}/r{row}/k{rack}", "gb", names))
        rows.append(RackRow(f"{zone}/r{row}", tuple(racks)))
    return Hall(zone, tuple(rows), (), Losses())


def _domains(draw: random.Random, halls: tuple[Hall, ...]) -> BlockLevel:
    """Domains of two to five nodes in a row, across racks too; now and then a node is in none."""
    blocks = []
    for hall in halls:
        left = [node for rack in hall.racks() for node in rack.nodes if draw.random() < 0.95]
        while left:
            size = draw.randint(2, 5)
            blocks.append(Block(f"d{len(blocks)}", compress(left[:size])))
            left = left[size:]
    return BlockLevel("nvlink_domain", tuple(blocks))


def _running(draw: random.Random, site: Site, down: set[str], slots: int) -> Iterator[Job]:
    hall = site.halls[0]
    free = [node for rack in hall.racks() for node in rack.nodes if node not in down]
    for number in range(draw.choice([0, 1, 2])):
        nodes = free[:: draw.randint(2, 4)][:2]
        free = [node for node in free if node not in nodes]
        if nodes:
            yield Job(
                f"r{number}", 4 * len(nodes), 300.0 * draw.uniform(0.5, slots), state="running", hall=hall.zone,
                node_type="gb", mode="full", nodes=compress(nodes), start_s=START_S - 900.0,
            )  # fmt: skip


def _job(draw: random.Random, number: int, slots: int) -> Job:
    nodes = draw.choice([1, 2, 2, 3, 4, 4, 6])
    within, each = None, None
    if draw.random() < 0.75:
        within = draw.choice(["nvlink_domain", "nvlink_domain", "rack", "row"])
        if draw.random() < 0.4:
            each = draw.choice([size for size in (1, 2, 3) if nodes % size == 0])
    return Job(
        f"j{number}",
        4 * nodes - draw.choice([0, 0, 0, 1]),
        300.0 * draw.uniform(0.6, slots),
        submit_s=START_S - 10.0,
        weight=draw.choice([1.0, 1.0, draw.uniform(0.3, 3.0)]),
        within=within,
        block_nodes=each,
    )


def exact_runs(s: Snapshot) -> tuple[int, list[Run]]:
    """Return the value of the best plan of a snapshot, running jobs included, and what starts in it."""
    unit = _unit_usd(s)
    model = cp_model.CpModel()
    runs: list[tuple[Run, cp_model.IntVar]] = []
    uses: dict[tuple[str, int], list[cp_model.IntVar]] = {}
    taken, value = _kept(s, unit)
    for number, job in enumerate(s.jobs):
        if job.state == "running":
            continue
        own = []
        for run, stop in _ways(s, number, unit):
            chosen = model.new_bool_var("")
            own.append(chosen)
            runs.append((run, chosen))
            nodes = _nodes(s, run.hall)
            on = {node: model.new_bool_var("") for node in nodes}
            model.add(sum(on.values()) == -(-job.gpus // 4) * chosen)
            for node in nodes:
                for slot in range(run.start, stop):
                    uses.setdefault((node, slot), []).append(on[node])
            _stay(model, s, job, on)
        model.add_at_most_one(own)
    for (node, slot), on_node in uses.items():
        model.add(sum(on_node) <= (0 if (node, slot) in taken else 1))
    model.maximize(sum(run.value * chosen for run, chosen in runs))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(model) == cp_model.OPTIMAL
    best = [run for run, chosen in runs if solver.boolean_value(chosen)]
    return value + sum(run.value for run in best), best


def _unit_usd(s: Snapshot) -> float:
    total = sum(j.weight * j.gpus * j.duration_s / 3600 * s.objective.usd_per_gpu_h for j in s.jobs) * 1010
    return float(10.0 ** max(-6, math.ceil(math.log10(max(total, 1e-9) / 2.0**50))))


def _worth(s: Snapshot, job: Job, unit: float) -> tuple[int, int, int]:
    """Return the slots of a job, its value per slot and the cost of a slot of delay."""
    worth = max(1, round(job.weight * job.gpus * job.duration_s / 3600 * s.objective.usd_per_gpu_h / unit))
    within = worth * min(1.0, s.slots * s.slot_s / job.duration_s)
    length = max(1, math.ceil(job.duration_s / s.slot_s - 1e-9))
    return length, max(1, round(worth / length)), round(within * s.objective.delay_share / s.slots)


def _kept(s: Snapshot, unit: float) -> tuple[set[tuple[str, int]], int]:
    """Return the nodes and slots of the running jobs, and their value."""
    taken, value = set(), 0
    for job in s.jobs:
        if job.state == "running":
            length, rate, _ = _worth(s, job, unit)
            stop = min(s.slots, length)
            taken |= {(node, slot) for node in expand(job.nodes or "") for slot in range(stop)}
            value += rate * stop
    return taken, value


def _ways(s: Snapshot, number: int, unit: float) -> Iterator[tuple[Run, int]]:
    job = s.jobs[number]
    length, rate, delay = _worth(s, job, unit)
    for hall in s.site.halls:
        for start in range(s.slots):
            stop = min(s.slots, start + length)
            value = rate * (stop - start) - delay * (start + length) + delay * length
            yield Run(number, hall.zone, start, value), stop


def _nodes(s: Snapshot, zone: str) -> list[str]:
    hall = next(hall for hall in s.site.halls if hall.zone == zone)
    return [node for rack in hall.racks() for node in rack.nodes if node not in s.down_nodes]


def _blocks(s: Snapshot, level: str) -> list[set[str]]:
    if level == "nvlink_domain":
        return [set(expand(block.nodes)) for block in s.site.levels[0].blocks]
    rows = [row for hall in s.site.halls for row in hall.rows]
    if level == "row":
        return [{node for rack in row.racks for node in rack.nodes} for row in rows]
    return [set(rack.nodes) for row in rows for rack in row.racks]


def _stay(model: cp_model.CpModel, s: Snapshot, job: Job, on: dict[str, cp_model.IntVar]) -> None:
    """Every block holds whole parts of the job, and nothing of it lies outside."""
    if job.within is None:
        return
    each = job.block_nodes or -(-job.gpus // 4)
    blocks = _blocks(s, job.within)
    for block in blocks:
        model.add(sum(x for node, x in on.items() if node in block) == each * model.new_int_var(0, 9, ""))
    model.add(sum(x for node, x in on.items() if not any(node in block for block in blocks)) == 0)
