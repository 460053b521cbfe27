"""Value, proven bound and gap on the open and pinned families, beside list schedulers and plain CP-SAT.

Every schedule, ours and the peers', is checked by code that it does not share with the solver; the bound shown is
recomputed from the published prices in exact integers. The numerical kernels are compiled once before
the clock starts (this is cached on disk and takes about half a minute on the very first run of a machine).

    python benchmarks/scale.py --family open --jobs 10000 --slots 288 --seed 1 --seconds 60 --json open.json
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import time
from pathlib import Path

import numba
import numpy
import ortools

from powerhall_optimizer.problem.arrays import Problem
from powerhall_optimizer.problem.schedule_check import verify_schedule
from powerhall_optimizer.problem.synthetic import FAMILIES, generate
from powerhall_optimizer.solve.pipeline import SolveResult, solve

sys.path.insert(0, str(Path(__file__).parent))
from peers import peers


def main() -> int:
    """Run one instance and print the table."""
    args = _arguments()
    solve(generate("open", 200, 96, 0), seconds=2.0, workers=args.workers)  # compile, outside the clock
    problem = generate(args.family, args.jobs, args.slots, args.seed)
    began, spent = time.monotonic(), time.process_time()
    result = solve(problem, seconds=args.seconds, target_gap=args.target_gap, seed=args.seed, workers=args.workers)
    seconds, cpu = time.monotonic() - began, time.process_time() - spent
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report = verify_schedule(problem, result.schedule, result.certificate)
    out = {
        "family": args.family,
        "jobs": args.jobs,
        "slots": args.slots,
        "seed": args.seed,
        "value": report.value,
        "bound": report.bound,
        "gap": report.gap,
        "verified": report.ok and report.value == result.value,
        "seconds": round(seconds, 2),
        "cpu_s": round(cpu, 2),
        "rss_mib": round(memory, 1),
        "stages": [{"name": s.name, "seconds": round(s.seconds, 2), "value": s.value} for s in result.stages],
        "machine": f"{platform.machine()}, {numba.config.NUMBA_DEFAULT_NUM_THREADS} cores",
        "versions": f"python {platform.python_version()}, numpy {numpy.__version__}, numba {numba.__version__}, "
        f"ortools {ortools.__version__}",
    }
    if args.warm:
        out |= _warm(problem, result, args.workers)
    for name, call in peers(problem, args.seconds, args.workers, not args.no_cpsat).items() if args.peers else ():
        out[name] = _judged(problem, call, report.bound or 0)
    _print(out)
    if args.json:
        Path(args.json).write_text(json.dumps(out, indent=1) + "\n")
    return 0 if out["verified"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="open")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=288)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="time of our solver, and of each peer")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--target-gap", type=float, default=0.0, help="stop early at this gap")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--no-cpsat", action="store_true", help="leave plain CP-SAT out of the peers")
    parser.add_argument("--warm", action="store_true", help="also re-solve in 10 s from the first result")
    parser.add_argument("--quick", action="store_true", help="1,000 jobs, 96 slots, 10 s")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.quick:
        args.jobs, args.slots, args.seconds = 1_000, 96, 10.0
    return args


def _judged(problem: Problem, call, bound: int) -> dict[str, object]:  # type: ignore[no-untyped-def]
    began = time.monotonic()
    schedule = call()
    seconds = round(time.monotonic() - began, 2)
    if schedule is None:
        return {"value": None, "gap": None, "verified": False, "seconds": seconds}
    report = verify_schedule(problem, schedule)
    gap = (bound - report.value) / max(1, abs(report.value))
    return {"value": report.value, "gap": gap, "verified": report.ok, "seconds": seconds}


def _warm(problem: Problem, first: SolveResult, workers: int) -> dict[str, object]:
    """Repair alone with the previous plan, and a warm re-solve in ten seconds."""
    began = time.monotonic()
    again = solve(problem, seconds=10.0, workers=workers, warm=first.certificate, previous=first.schedule)
    seconds = round(time.monotonic() - began, 2)
    report = verify_schedule(problem, again.schedule, again.certificate)
    return {
        "warm_seconds": seconds,
        "warm_gap": report.gap,
        "warm_verified": report.ok,
        "repair_seconds": round(again.stages[0].seconds, 3),
    }


def _print(out: dict[str, object]) -> None:
    print(f"{out['family']} {out['jobs']} jobs x {out['slots']} slots, seed {out['seed']}")
    print(f"{out['machine']}; {out['versions']}")
    print(f"{'method':16} {'value':>18} {'gap to bound':>13} {'verified':>9} {'seconds':>8}")
    rows = {"powerhall": out} | {k: v for k, v in out.items() if isinstance(v, dict)}
    for name, row in rows.items():
        gap = f"{row['gap']:.3%}" if row["gap"] is not None else "no plan"
        value = f"{row['value']:,}" if row["value"] is not None else "-"
        print(f"{name:16} {value:>18} {gap:>13} {row['verified']!s:>9} {row['seconds']:>8}")
    print(f"bound {out['bound']:,}; CPU {out['cpu_s']} s; peak memory {out['rss_mib']} MiB")
    for key in ("repair_seconds", "warm_seconds", "warm_gap"):
        if key in out:
            print(f"{key} {out[key]}")


if __name__ == "__main__":
    sys.exit(main())
