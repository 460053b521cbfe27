"""Gap of whole rounds on small sites: 60 instances of 24 to 200 nodes and 12 to 300 jobs, 288 slots.

Every instance is planned as a round plans it, placed on nodes, and verified by the checker; gap is
(bound - value) / value of the plan. The compiled loops are warm before the clock starts. Wall and CPU seconds are of
the whole plan, all processes.

    python benchmarks/small.py --seconds 10 --json small.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

from powerhall.runtime.log import Log
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.solve.jit_warmup import compile_solver
from powerhall_optimizer.verify.plan import verify_plan

sys.path.insert(0, str(Path(__file__).parent))
from sites import START_S, jobs_of, site_of, snapshot_of

SLOTS = 288
SHAPES = ((24, 1, (12, 30, 60)), (60, 2, (15, 45, 100)), (96, 3, (30, 90, 150)), (200, 3, (60, 150, 300)))
"""Nodes, halls, and the numbers of jobs in turn."""


def main() -> int:
    """Plan the instances and print a row for each."""
    args = _arguments()
    compile_solver()
    settings = RoundSettings(target_gap=0.0, workers=args.workers, work_rate=0.85 / args.patience)
    rows = []
    print("nodes halls jobs seed      gap            value  wall s  CPU s verified")
    for nodes, halls, jobs, seed in _instances(args)[args.first :]:
        row = _planned(nodes, halls, jobs, seed, args.seconds * args.patience, settings, args.log)
        rows.append(row)
        print(
            f"{nodes:5} {halls:5} {jobs:4} {seed:4} {row['gap']:8.3%} {row['value']:16,} {row['wall_s']:7.2f} "
            f"{row['cpu_s']:6.2f} {row['verified']}",
            flush=True,
        )
    gaps = [float(str(row["gap"])) for row in rows]
    out = {
        "gap_median": statistics.median(gaps),
        "gap_worst": max(gaps),
        "verified": all(row["verified"] for row in rows),
        "wall_worst_s": max(float(str(row["wall_s"])) for row in rows),
        "seconds": args.seconds,
        "patience": args.patience,
        "workers": args.workers,
        "load": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "instances": rows,
    }
    print(
        f"{len(rows)} instances, {args.seconds:g} s: gap median {out['gap_median']:.3%}, worst {out['gap_worst']:.3%}; "
        f"slowest {out['wall_worst_s']:.1f} s; verified {out['verified']}; load {out['load']:.1f}"
    )
    if args.json:
        Path(args.json).write_text(json.dumps(out, indent=1) + "\n")
    return 0 if out["verified"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="time of each round (default: 10)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5, help="seeds per number of nodes and jobs (default: 5)")
    parser.add_argument("--first", type=int, default=0, help="leave out the instances before this one")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="deadlines so many times later, for the same work on a busy machine"
    )
    parser.add_argument("--log", action="store_true", help="show what the solver's stages reach")
    parser.add_argument("--quick", action="store_true", help="one seed, the fewest jobs of each size, 4 s")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.seconds = 1, 4.0
    return args


def _instances(args: argparse.Namespace) -> list[tuple[int, int, int, int]]:
    """All seeds of the first shape come last, so that a part of the list has every shape in it."""
    found = []
    for seed in range(1, args.seeds + 1):
        for nodes, halls, counts in SHAPES:
            found += [(nodes, halls, jobs, seed) for jobs in (counts[:1] if args.quick else counts)]
    return found


def _planned(
    nodes: int, halls: int, jobs: int, seed: int, seconds: float, settings: RoundSettings, log: bool
) -> dict[str, object]:
    site = site_of(nodes, halls, seed)
    snapshot = snapshot_of(site, jobs_of(site, jobs, SLOTS, seed), SLOTS, seed)
    began, before = time.monotonic(), os.times()
    plan = make_plan(snapshot, settings, seconds, created_s=START_S, log=Log(quiet=not log))
    wall, after = time.monotonic() - began, os.times()
    return {
        "nodes": nodes,
        "halls": halls,
        "jobs": jobs,
        "seed": seed,
        "value": plan.value,
        "bound": plan.bound,
        "gap": (plan.bound - plan.value) / max(1, abs(plan.value)),
        "status": plan.status,
        "verified": not verify_plan(plan),
        "wall_s": round(wall, 2),
        "cpu_s": round(sum(after[:4]) - sum(before[:4]), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
