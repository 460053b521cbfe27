"""Plan the smallest site from a script and print when each job runs, and why one of them runs late.

python examples/first/plan.py [OUT]
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from powerhall_optimizer import api

HERE = Path(__file__).parent


def clock(time_s: float) -> str:
    """Return a time of day in UTC."""
    return f"{datetime.fromtimestamp(time_s, UTC):%H:%M}"


def main(out: Path) -> None:
    """Read, plan, verify, print, explain, write."""
    site = api.read_site(HERE / "site.toml")
    queue = api.read_queue(HERE / "jobs.csv")
    plan = api.plan(site, queue, start="2026-07-01T00:00Z", horizon="6h", seconds=2)
    assert api.verify(plan) == []
    for job in sorted(plan.assignments, key=lambda entry: entry.start_s):
        print(f"{job.job_id:8}{clock(job.start_s)} to {clock(job.end_s)}  {job.mode}  {job.reason}")
    for job in plan.waiting:
        print(f"{job.job_id:8}waits: {job.reason}")
    print(f"within {plan.gap:.1%} of the best plan; {api.figures(plan).energy_j / 3.6e6:.0f} kWh")
    print(*api.explain(plan, "sweep"), sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    api.write_plan(plan, out / "plan.json")
    api.write_report(plan, out / "report.html")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=Path("out/first"), help="folder (default: %(default)s)")
    main(parser.parse_args().out)
