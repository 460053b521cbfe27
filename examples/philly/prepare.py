"""Make the input of the Philly example: the busiest 24 h of the trace, ERCOT prices laid over it, weather of Phoenix.

    python examples/philly/prepare.py DATA OUT
    cd OUT
    powerhall-optimizer round --site site.toml --jobs jobs.csv --start 2017-10-25T19:00Z --report report.html

DATA holds jobs/philly_jobs.csv.gz, weather/USA_AZ_Phoenix-Sky.Harbor.epw.gz and prices/US-TEX-ERCO_2022_2023.csv.gz
(tests find it by POWERHALL_DATA or ../shared/data). The prices are those of the same hours of the year 2022.
"""

import argparse
import csv
import shutil
import sys
from bisect import bisect_left
from datetime import UTC, datetime
from pathlib import Path

from powerhall.forecasts.csv_series import PRICES, read_forecast
from powerhall.jobs import Job, read_philly, write_jobs

DAY_S = 86_400.0
HOUR_S = 3600.0


def busiest_day(jobs: tuple[Job, ...]) -> tuple[float, tuple[Job, ...]]:
    """Return the start of the 24 h, on the hour, whose jobs ask for most GPU hours (a day each at most), and them."""
    ordered = sorted(jobs, key=lambda job: (job.submit_s, job.job_id))
    submits = [job.submit_s for job in ordered]
    best: tuple[float, float, tuple[Job, ...]] = (-1.0, 0.0, ())
    start_s = submits[0] // HOUR_S * HOUR_S
    while start_s < submits[-1]:
        window = ordered[bisect_left(submits, start_s) : bisect_left(submits, start_s + DAY_S)]
        asked = sum(job.gpus * min(job.duration_s, DAY_S) for job in window)
        if asked > best[0]:
            best = asked, start_s, tuple(window)
        start_s += HOUR_S
    return best[1], best[2]


def prepare(data: Path, out: Path) -> float:
    """Write site.toml, jobs.csv, prices.csv and the weather into `out`; return the start of the day."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("site.toml"), out / "site.toml")
    shutil.copy(data / "weather" / "USA_AZ_Phoenix-Sky.Harbor.epw.gz", out / "phoenix.epw.gz")
    start_s, jobs = busiest_day(read_philly(data / "jobs" / "philly_jobs.csv.gz"))
    (out / "jobs.csv").write_text(write_jobs(jobs), encoding="utf-8")
    prices = read_forecast(data / "prices" / "US-TEX-ERCO_2022_2023.csv.gz", PRICES).series
    shift_s = datetime.fromtimestamp(start_s, UTC).replace(year=2022).timestamp() - start_s
    with (out / "prices.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("time_s", "usd_per_mwh"))
        writer.writerows((start_s + h * HOUR_S, prices.at(start_s + shift_s + h * HOUR_S)) for h in range(48))
    return start_s


def main() -> int:
    """Write the example's input and say where it begins."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    start_s = prepare(args.data, args.out)
    sys.stdout.write(f"{args.out}: the day begins at {datetime.fromtimestamp(start_s, UTC).isoformat()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
