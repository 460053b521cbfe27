"""Value of choosing power modes jointly, against a uniform cap and against admission control alone.

The same queue is planned at site budgets of 70, 80 and 90 % of the nodes' draw at full power. Joint: every
job has its four modes. Uniform cap: every job runs in the one mode (of the four) that gives the highest total value.
Admission only: every job runs at full power, the plan chooses who and when. All three use the same solver, time and
checker.

    python benchmarks/modes.py --jobs 2000 --slots 144 --seconds 20 --json modes.json
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from powerhall_optimizer.problem.arrays import Problem
from powerhall_optimizer.problem.schedule_check import verify_schedule
from powerhall_optimizer.problem.synthetic import MODES, generate
from powerhall_optimizer.solve.pipeline import solve


def with_budget(problem: Problem, share: float) -> Problem:
    """The same problem with the site's watts at `share` of its nodes' draw at full power."""
    capacity = problem.capacity.copy()
    first = problem.option_uses[:-1][problem.option_label % 4 == 0]
    per_node = float((problem.use_amount[first + 3] / problem.use_amount[first]).mean())
    halls = (problem.resources - 1) // 3
    full = per_node * capacity[0 : 3 * halls : 3].sum(axis=0)
    capacity[-1] = np.floor(share * full).astype(np.int64)
    return replace(problem, capacity=capacity)


def only_mode(problem: Problem, mode: int) -> Problem:
    """The same problem with one mode per hall and job."""
    keep = np.flatnonzero(problem.option_label % 4 == mode)
    job = np.repeat(np.arange(problem.jobs), np.diff(problem.job_options))[keep]
    entries = (problem.option_uses[keep][:, None] + np.arange(4)).reshape(-1)
    names = [
        n for n in Problem.__dataclass_fields__ if n.startswith("option_") and n not in ("option_labels", "option_uses")
    ]
    return replace(
        problem,
        job_options=np.searchsorted(job, np.arange(problem.jobs + 1)).astype(np.int64),
        option_uses=np.arange(0, 4 * len(keep) + 1, 4, dtype=np.int64),
        use_resource=problem.use_resource[entries],
        use_amount=problem.use_amount[entries],
        **{name: getattr(problem, name)[keep] for name in names},
    )


def main() -> int:
    """Run the three policies at three budgets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--slots", type=int, default=144)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="per plan; 15 plans are made")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="500 jobs, 96 slots, 2 s per plan")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.quick:
        args.jobs, args.slots, args.seconds = 500, 96, 2.0
    solve(generate("open", 200, 96, 0), seconds=2.0, workers=args.workers)  # compile, outside the clock
    base = generate("open", args.jobs, args.slots, args.seed)
    out: dict[str, object] = {"jobs": args.jobs, "slots": args.slots, "seed": args.seed, "verified": True}
    print(f"open {args.jobs} jobs x {args.slots} slots, seed {args.seed}; python {platform.python_version()}")
    print(f"{'budget':>7} {'policy':16} {'value':>18} {'against joint':>14} {'gap':>8}")
    for share in (0.7, 0.8, 0.9):
        problem = with_budget(base, share)
        tried = {"joint": problem} | {f"cap {MODES[m]}": only_mode(problem, m) for m in range(4)}
        rows = {}
        for name, variant in tried.items():
            result = solve(variant, seconds=args.seconds, seed=args.seed, workers=args.workers)
            report = verify_schedule(variant, result.schedule, result.certificate)
            out["verified"] = bool(out["verified"]) and report.ok
            rows[name] = (report.value, report.gap or 0.0)
        caps = {name: row for name, row in rows.items() if name != "joint"}
        best = max(caps, key=lambda name: caps[name][0])
        shown = {"joint": rows["joint"], f"uniform {best}": caps[best], "admission only": rows[f"cap {MODES[0]}"]}
        for label, (value, gap) in shown.items():
            print(f"{share:7.0%} {label:16} {value:18,} {value / rows['joint'][0] - 1:14.2%} {gap:8.2%}", flush=True)
        for key, row in zip(("joint", "uniform_cap", "admission_only"), shown.values(), strict=True):
            out[f"{key}_{share:.0%}".rstrip("%")] = row[0]
    if args.json:
        Path(args.json).write_text(json.dumps(out, indent=1) + "\n")
    return 0 if out["verified"] else 1


if __name__ == "__main__":
    sys.exit(main())
