"""Whole rounds of large sites by the command line: wall time from start to published plan, gap after placement.

`large`: one site of 44,000 nodes with 10,000 jobs. `sites`: 20 sites of 200 nodes with 3,000 jobs, a third of which may
run on some of the sites alone. A second round, a slot later, has the jobs that run by then, and the first plan. The
machine should be idle; the load is printed. `--quick` has a twentieth of the nodes and jobs.

    python benchmarks/rounds.py large --seconds 60 --seed 1 --json large.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from powerhall.jobs import Job
from powerhall.jobs.job_files import write_jobs
from powerhall.plan.multi_site import MultiSitePlan, read_plans
from powerhall_optimizer.verify.multi_site import verify_plans

sys.path.insert(0, str(Path(__file__).parent))
from sites import SLOT_S, START_S, jobs_of, site_of, site_text, snapshot_of

SLOTS = 288
ROUND = "from powerhall_optimizer.entry import main; raise SystemExit(main())"


def main() -> int:
    """Run both rounds and print a row for each."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, jobs = _inputs(args, folder)
        rows = [_round(args, folder, files, jobs, START_S)]
        rows.append(_round(args, folder, files, _later(folder / "plan.json", jobs), START_S + SLOT_S))
    for row in rows:
        print(" ".join(f"{key}={value}" for key, value in row.items()))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["verified"] for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=("large", "sites"))
    parser.add_argument("--seconds", type=float, default=60.0, help="time of each round (default: 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the nodes and jobs")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


def _inputs(args: argparse.Namespace, folder: Path) -> tuple[list[Path], tuple[Job, ...]]:
    """Write the site files with weather and prices; return them and the queue."""
    part = 20 if args.quick else 1
    count, nodes, halls, queued = (1, 44_000 // part, 10, 10_000 // part)
    if args.case == "sites":
        count, nodes, halls, queued = (20 // min(part, 10), 200, 2, 3000 // min(part, 10))
    files = []
    for number in range(count):
        name, seed = f"site{number + 1:02d}", args.seed * 100 + number
        files.append(folder / f"{name}.toml")
        text = site_text(nodes, halls, seed, name)
        text = text.replace("weather.csv", f"{name}.weather.csv").replace("prices.csv", f"{name}.prices.csv")
        files[-1].write_text(text)
        _write_day(folder, name, seed)
    jobs = jobs_of(site_of(nodes * count, halls * count, args.seed), queued, SLOTS, args.seed)
    largest = nodes // halls // 2 * 8
    draw = random.Random(f"residency {args.seed}")
    names = [file.stem for file in files]
    fitted = []
    for job in jobs:
        home = tuple(draw.sample(names, draw.randint(1, max(1, count // 4)))) if draw.random() < 1 / 3 else ()
        fitted.append(msgspec.structs.replace(job, gpus=min(job.gpus, largest), sites=home if count > 1 else ()))
    return files, tuple(fitted)


def _write_day(folder: Path, name: str, seed: int) -> None:
    """Write the weather and prices of a site, an hour longer than two days."""
    day = snapshot_of(site_of(32, 1, seed), (), 2 * SLOTS + 12, seed)
    times = [datetime.fromtimestamp(START_S + SLOT_S * i, UTC).strftime("%Y-%m-%dT%H:%MZ") for i in range(day.slots)]
    weather = zip(times, day.dry_bulb_c, day.wet_bulb_c, strict=True)
    lines = ["time,dry_bulb_c,wet_bulb_c", *(",".join(map(str, row)) for row in weather)]
    (folder / f"{name}.weather.csv").write_text("\n".join(lines) + "\n")
    lines = ["time,usd_per_mwh", *(f"{at},{price}" for at, price in zip(times, day.price_per_mwh, strict=True))]
    (folder / f"{name}.prices.csv").write_text("\n".join(lines) + "\n")


def _later(path: Path, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    """Return the queue a slot later: jobs that start in the first slot of the plan run."""
    plan = read_plans(path)
    started = {}
    for part in plan.plans if isinstance(plan, MultiSitePlan) else (plan,):
        for entry in part.assignments:
            if entry.start_s < START_S + SLOT_S:
                started[entry.job_id] = (part.snapshot.site.name, entry)
    queue = []
    for job in jobs:
        if job.job_id not in started:
            queue.append(job)
            continue
        site, entry = started[job.job_id]
        nodes = ",".join(placement.nodes for placement in entry.placements)
        queue.append(
            msgspec.structs.replace(
                job,
                state="running",
                site=site,
                hall=entry.hall,
                node_type=entry.node_type,
                mode=entry.mode,
                nodes=nodes,
                start_s=float(entry.start_s),
                duration_s=max(SLOT_S, job.duration_s - SLOT_S),
            )
        )
    return tuple(queue)


def _round(
    args: argparse.Namespace, folder: Path, files: list[Path], jobs: tuple[Job, ...], start_s: int
) -> dict[str, object]:
    (folder / "jobs.csv").write_text(write_jobs(jobs))
    command = [sys.executable, "-c", ROUND, "round", "--jobs", "jobs.csv", "--out", "plan.json", "--json"]
    for file in files:
        command += ["--site", file.name]
    command += ["--start", str(start_s), "--seconds", str(args.seconds)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    sys.stderr.write("".join(f"{line}\n" for line in done.stderr.splitlines() if "solver" in line or "late" in line))
    if done.returncode:
        raise SystemExit(done.stderr)
    out = json.loads(done.stdout)
    return {
        "case": args.case,
        "seed": args.seed,
        "gap": round(out["gap"], 5),
        "wall_s": round(wall_s, 1),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "running": sum(job.state == "running" for job in jobs),
        "started": out["jobs_started"],
        "cut_short": out["cut_short"],
        "verified": not verify_plans(read_plans(folder / "plan.json")),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    sys.exit(main())
