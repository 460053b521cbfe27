"""What a round changes of the plan before it when one limit changes, against a plan made freely with the same work.

Changes are counted from the two plans alone: another start, hall, node type, mode or other nodes, or no start.

    python benchmarks/stability.py --nodes 200 --halls 3 --jobs 300 --seconds 10
    python benchmarks/stability.py --site site.toml --queue jobs.csv --start 2026-07-15T21:00Z
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.log import Log
from powerhall_optimizer import api
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.solve.jit_warmup import compile_solver
from powerhall_optimizer.verify.plan import verify_plan

sys.path.insert(0, str(Path(__file__).parent))
from sites import jobs_of, site_of, snapshot_of

SLOTS = 288


def main() -> int:
    """Plan, change each limit, plan again near the plan and freely, and print a row for each."""
    args = _arguments()
    compile_solver()
    settings = RoundSettings(
        work_rate=0.85 / args.patience, target_gap=args.target_gap, keep_s=args.keep_s, move_gain=args.move_gain
    )
    snapshot = _snapshot(args)
    first = _planned(snapshot, args, settings)
    print(f"{len(first.assignments)} decisions, gap {first.gap:.2%}, cut short: {first.cut_short or 'nothing'}")
    print("change               changed        of free  value to free  gap     cut short")
    well = True
    for change in args.changes:
        other = what_if(snapshot, change)
        free, stable = _planned(other, args, settings), _planned(other, args, settings, first)
        changed, freely = changed_jobs(first, stable), changed_jobs(first, free)
        share, value = len(changed) / max(1, len(first.assignments)), stable.value / free.value - 1
        well &= not verify_plan(stable) and share <= 0.05 and value >= -0.002
        print(
            f"{change:20} {len(changed):3} {share:7.2%} {len(freely):10} {value:+14.3%} {stable.gap:7.2%}  "
            f"{', '.join({*free.cut_short, *stable.cut_short}) or 'nothing'}",
            flush=True,
        )
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; targets {'met' if well else 'not met'}")
    return 0 if well else 1


def changed_jobs(before: Plan, after: Plan) -> set[str]:
    """Return the ids of the jobs that start in `before` and have another decision in `after`."""
    found = {a.job_id: (a.start_s, a.hall, a.node_type, a.mode, a.placements) for a in after.assignments}
    return {
        a.job_id
        for a in before.assignments
        if found.get(a.job_id) != (a.start_s, a.hall, a.node_type, a.mode, a.placements)
    }


def _snapshot(args: argparse.Namespace) -> Snapshot:
    if args.site is None:
        site = site_of(args.nodes, args.halls, args.seed)
        return snapshot_of(site, jobs_of(site, args.jobs, SLOTS, args.seed), SLOTS, args.seed)
    plan = api.plan(api.read_site(args.site), api.read_queue(args.queue), start=args.start, seconds=0.5)
    return plan.snapshot


def _planned(
    snapshot: Snapshot, args: argparse.Namespace, settings: RoundSettings, previous: Plan | None = None
) -> Plan:
    seconds = args.seconds * args.patience
    snapshot = msgspec.structs.replace(snapshot, planned=())
    return make_plan(
        snapshot, settings, seconds, created_s=snapshot.start_s, log=Log(quiet=not args.log), previous=previous
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--halls", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--site", help="a site file instead of a random site, with --queue and --start")
    parser.add_argument("--queue", help="jobs file of --site")
    parser.add_argument("--start", help="begin of the plan of --site")
    parser.add_argument("--seconds", type=float, default=10.0, help="time of each round (default: 10)")
    parser.add_argument("--patience", type=float, default=1.0, help="deadlines so many times later, for the same work")
    parser.add_argument("--target-gap", type=float, default=0.0)
    parser.add_argument("--keep-s", type=float, default=RoundSettings().keep_s)
    parser.add_argument("--move-gain", type=float, default=RoundSettings().move_gain)
    parser.add_argument(
        "--changes",
        nargs="+",
        default=["grid=+1%", "grid=-1%", "hall1.power=+1%", "hall1.power=-1%", "hall1.cooling=+1%"],
    )
    parser.add_argument("--log", action="store_true", help="show what the solver's stages reach")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
