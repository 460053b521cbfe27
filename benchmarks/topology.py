"""Value lost to blocks: a queue of gangs that stay within NVLink domains, planned with and without `within`.

The site has racks of 18 nodes with 4 GPUs, each rack a domain, and a limit of power that binds; two thirds of the GPU
hours stay within a domain, some of them in parts. Both plans are placed on nodes and verified. `lost` is the value
without blocks less that with them, over the former; `gap` is to the proven bound.

    python benchmarks/topology.py --jobs 10000 --seconds 60
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from powerhall.jobs import Job
from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.log import Log
from powerhall.site.site_file import read_site
from powerhall.site.topology import Site
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.solve.jit_warmup import compile_solver
from powerhall_optimizer.verify.plan import verify_plan

sys.path.insert(0, str(Path(__file__).parent))
from sites import SLOT_S, START_S

SLOTS, NODES_PER_RACK, GPUS = 288, 18, 4
_SITE = """
[site]
name = "bench"
power_limit = "{limit_w} W"
[node_types.gb200]
gpu = "GB200"
gpus = 4
idle_power = "1.6 kW"
max_power = "6.7 kW"
liquid_fraction = 0.85
modes = [
  {{name = "full", gpu_power = "1.6 kW", speed = 1.0}},
  {{name = "p80", gpu_power = "1.28 kW", speed = 0.93}},
]
[blocks.nvlink_domain]
each = "rack"
"""


def site_of(halls: int) -> Site:
    """Return a site of halls with ten rows of ten racks."""
    nodes = halls * 100 * NODES_PER_RACK
    text = _SITE.format(limit_w=round(0.85 * 6_700 * nodes))
    for hall in range(halls):
        rows = [
            f'{{name = "r{row}", racks = [{{node_type = "gb200", count = 10, nodes = {NODES_PER_RACK}}}]}}'
            for row in range(10)
        ]
        text += f'[[halls]]\nname = "hall{hall + 1}"\nrows = [{", ".join(rows)}]\n'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "site.toml")
        path.write_text(text)
        return read_site(path)[0]


def jobs_of(site: Site, count: int, seed: int) -> tuple[Job, ...]:
    """Return a queue that wants 1.4 times the GPU hours of the site within the horizon."""
    draw = random.Random(f"blocks {seed}")
    shapes = []
    for _ in range(count):
        nodes = draw.choice([1, 2, 2, 4, 4, 8, 9, 12, 16, 18, 18, 36, 72])
        gpus = draw.choice([1, 2]) if draw.random() < 0.2 else nodes * GPUS
        shapes.append((gpus, draw.lognormvariate(0, 0.8), draw.random()))
    gpus_there = sum(len(rack.nodes) for rack in site.racks()) * GPUS
    scale = 1.4 * gpus_there * SLOTS * SLOT_S / 3600 / sum(gpus * hours for gpus, hours, _ in shapes)
    return tuple(_job(draw, number, *shape, scale) for number, shape in enumerate(shapes))


def _job(draw: random.Random, number: int, gpus: int, hours: float, kind: float, scale: float) -> Job:
    nodes = -(-gpus // GPUS)
    each = None if nodes <= NODES_PER_RACK else NODES_PER_RACK
    stays = kind < 2 / 3 and nodes > 1
    return Job(
        f"j{number:05d}",
        gpus,
        3600 * min(36.0, max(0.25, hours * scale)),
        START_S - draw.uniform(0, 86_400),
        weight=draw.choice([0.5, 1.0, 1.0, 2.0]),
        earliest_s=START_S + (0.0 if draw.random() < 0.6 else draw.uniform(0, 0.7) * SLOTS * SLOT_S),
        within="nvlink_domain" if stays else None,
        block_nodes=each if stays else None,
    )


def _planned(site: Site, jobs: tuple[Job, ...], seconds: float, settings: RoundSettings) -> tuple[Plan, float]:
    snapshot = Snapshot(START_S, START_S, SLOT_S, SLOTS, site, jobs)
    began_s = time.monotonic()
    plan = make_plan(snapshot, settings, seconds, created_s=START_S, log=Log(quiet=True))
    return plan, time.monotonic() - began_s


def main() -> int:
    """Plan each seed twice and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--halls", type=int, default=4, help="halls of 1,800 nodes (default: 4)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="time of each round (default: 60)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", help="write the rows to this file")
    args = parser.parse_args()
    compile_solver()
    settings = RoundSettings(target_gap=0.0, workers=args.workers)
    site, rows = site_of(args.halls), []
    for seed in range(args.seeds):
        jobs = jobs_of(site, args.jobs, seed)
        anywhere = tuple(msgspec.structs.replace(job, within=None, block_nodes=None) for job in jobs)
        free, free_s = _planned(site, anywhere, args.seconds, settings)
        kept, kept_s = _planned(site, jobs, args.seconds, settings)
        row = {
            "jobs": args.jobs,
            "seed": seed,
            "within": sum(job.within is not None for job in jobs),
            "lost": (free.value - kept.value) / free.value,
            "gap": (kept.bound - kept.value) / kept.value,
            "gap_without": (free.bound - free.value) / free.value,
            "topology_waits": sum(entry.code == "topology" for entry in kept.waiting),
            "verified": not verify_plan(kept) and not verify_plan(free),
            "wall_s": [round(free_s, 1), round(kept_s, 1)],
            "load": os.getloadavg()[0],
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["verified"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
