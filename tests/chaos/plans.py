"""The site of an episode, and plans of it made by hand: a node per hall, two halls on one feed, GPUs in two modes.

Plans are written with the product's own structs and verified by it, as planner and store would hand them out; what the
judge knows of them is kept beside, in numbers of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from powerhall.jobs.model import Job
from powerhall.plan.plan import (
    PLAN_VERSION,
    Assignment,
    Placement,
    Plan,
    Snapshot,
    Waiting,
    read_plan,
    snapshot_hash,
    write_plan,
)
from powerhall.site.topology import Feed, Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall.timeseries import Series
from powerhall_optimizer.leases.newest_plan import note_newest
from rigs.claims import with_claims

GPUS = 4
SAFE_W, EXTRA_W = 250.0, 100.0
"""Safe limit of a GPU, and what its share of the node draws beside it."""
LIMITS_W = {"full": 700.0, "eco": 500.0}
NODE_SAFE_W = GPUS * (SAFE_W + EXTRA_W)
SLOT_S = 4
_SPEED = {"full": 1.0, "eco": 0.9}


def node_w(mode: str) -> float:
    """Return the draw of a busy node in a mode."""
    return GPUS * (LIMITS_W[mode] + EXTRA_W)


def budget_w(nodes: int) -> float:
    """Return a budget for one node at full power or two at eco, with all others safe; of one node a little more."""
    return nodes * NODE_SAFE_W + (2 * (node_w("eco") - NODE_SAFE_W) if nodes > 1 else 2000.0) + 200.0


def site_of(nodes: tuple[str, ...], steps: tuple[tuple[float, float], ...], name: str = "chaos") -> Site:
    """Return the site; `steps` are (time, W) of its budget."""
    modes = tuple(
        Mode(mode, "power_limit", limit_w + EXTRA_W, _SPEED[mode], gpu_power_limit_w=limit_w)
        for mode, limit_w in LIMITS_W.items()
    )
    kind = NodeType("sim", "H100", GPUS, 400.0, node_w("full"), NODE_SAFE_W, 0.0, modes)
    halls = tuple(
        Hall(f"h{node}", (RackRow(f"h{node}/r", (Rack(f"h{node}/r/k1", "sim", (node,)),)),), (), Losses())
        for node in nodes
    )
    feeds = (Feed("feed", tuple(hall.zone for hall in halls[:2]), feed_w()),) if len(nodes) > 2 else ()
    budgets = {name: Series(tuple(at for at, _ in steps), tuple(watts for _, watts in steps))}
    return Site(name, halls, {"sim": kind}, feeds=feeds, power_limit_w=steps[0][1], budgets=budgets)


def feed_w() -> float:
    """Return the limit of the feed of the first two nodes: both at eco, or one at full power and the other safe."""
    return 2 * node_w("eco") + 100.0


@dataclass(frozen=True)
class Planned:
    """A plan in a file, with what the judge must know of it."""

    path: Path
    plan_id: str
    end_s: float
    steps: tuple[tuple[float, float], ...]


def write(
    path: Path,
    nodes: tuple[str, ...],
    modes: Mapping[str, str],
    *,
    now_s: float,
    slots: int,
    steps: tuple[tuple[float, float], ...],
    busy_slots: int | None = None,
    site: str = "chaos",
) -> Planned:
    """Write a plan that runs one job per node of `modes` from now for `busy_slots`, in horizons of `slots`."""
    start_s = int(now_s)
    length = slots if busy_slots is None else busy_slots
    jobs, placed = [], []
    for node, mode in modes.items():
        duration_s = math.floor(length * SLOT_S * _SPEED[mode])
        hall = f"h{node}"
        jobs.append(Job(f"j{node}", GPUS, float(duration_s), float(start_s), halls=(hall,)))
        due_s = max(1, math.ceil(duration_s / _SPEED[mode] / SLOT_S - 1e-9)) * SLOT_S
        places = (Placement(f"{hall}/r/k1", node, GPUS),)
        power_w = LIMITS_W[mode] + EXTRA_W
        placed.append(Assignment(f"j{node}", hall, "sim", mode, GPUS, power_w, start_s, start_s + due_s, places))
    snapshot = Snapshot(start_s, start_s, SLOT_S, slots, site_of(nodes, steps, site), tuple(jobs))
    plan = Plan(
        version=PLAN_VERSION,
        plan_id=snapshot_hash(snapshot),
        created_s=start_s,
        status="feasible",
        value=0,
        bound=0,
        gap=0.0,
        assignments=tuple(placed),
        waiting=tuple[Waiting, ...](),
        zones=(),
        snapshot=snapshot,
    )
    write_plan(with_claims(plan), path)
    path.chmod(0o644)
    return Planned(path, plan.plan_id, start_s + slots * float(SLOT_S), steps)


def note(path: Path) -> None:
    """Note a plan in its place as the newest, as a round does."""
    note_newest(read_plan(path), path)
