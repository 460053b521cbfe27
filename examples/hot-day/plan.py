"""Plan a hot day, then ask what a weaker dry cooler would cost, and why a job waits.

python examples/hot-day/plan.py [OUT]
"""

import argparse
from pathlib import Path

from powerhall_optimizer import api

HERE = Path(__file__).parent


def main(out: Path) -> None:
    """Plan twice, compare, explain, write."""
    site, queue = api.read_site(HERE / "site.toml"), api.read_queue(HERE / "jobs.csv")
    plans = {
        change: api.plan(site, queue, start="2026-07-15T15:00Z", horizon="12h", seconds=3, what_if=change or None)
        for change in ("", "hall1.cooling=-20%")
    }
    for change, plan in plans.items():
        assert api.verify(plan) == []
        found = api.figures(plan)
        print(
            f"{change or 'as it is':20}{found.jobs_started:3} jobs start, {found.jobs_waiting:2} wait; "
            f"{found.work_gpu_s / 3600:.0f} GPU h, {found.energy_j / 3.6e6:.0f} kWh, {found.cost:.2f} USD"
        )
    plan = plans[""]
    for job in plan.waiting[:1]:
        print(*api.explain(plan, job.job_id), sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    api.write_plan(plan, out / "plan.json")
    api.write_report(plan, out / "report.html")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=Path("out/hot-day"), help="folder (default: %(default)s)")
    main(parser.parse_args().out)
