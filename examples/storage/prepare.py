"""Make the input of the storage example: a queue that asks for more than the site has, a hot day and its prices.

    python examples/storage/prepare.py OUT
    cd OUT
    powerhall-optimizer round --site site.toml --jobs jobs.csv --start 2026-07-15T12:00Z --report report.html

All of it is made up, by a formula and a seed: dry bulb from 23 to 35 degC, prices from 25 to 180 USD/MWh with a
peak in the evening, 150 jobs of 8 to 64 GPUs over 24 h.
"""

import argparse
import csv
import math
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

from powerhall.jobs import Job, write_jobs
from powerhall.physics.psychrometrics import wet_bulb_c

START = datetime(2026, 7, 15, 12, tzinfo=UTC)
HOURS = 48


def weather() -> list[tuple[float, float, float]]:
    """Rows of (time, dry bulb, wet bulb): hottest at 23:00 UTC, four in the afternoon in Phoenix."""
    rows = []
    for hour in range(HOURS):
        dry = 29.0 + 6.0 * math.cos((START.hour + hour - 23) / 24 * 2 * math.pi)
        humid = 30.0 - 15.0 * (dry - 23.0) / 12.0
        rows.append((START.timestamp() + hour * 3600, round(dry, 2), round(wet_bulb_c(dry, humid), 2)))
    return rows


def prices() -> list[tuple[float, float]]:
    """Rows of (time, USD per MWh): cheap nights, a peak when the sun sets."""
    rows = []
    for hour in range(HOURS):
        clock = (START.hour + hour) % 24
        peak = max(0.0, 1.0 - abs((clock - 26) % 24 if clock > 12 else clock - 2) / 4)
        rows.append((START.timestamp() + hour * 3600, round(25.0 + 25.0 * (clock > 14) + 130.0 * peak, 2)))
    return rows


def jobs() -> tuple[Job, ...]:
    """Jobs that all wait at the start or come within 18 hours; some matter more."""
    draw = random.Random(7)  # noqa: S311 - an example, no secret
    start_s = int(START.timestamp())
    return tuple(
        Job(
            f"job{i:03d}",
            draw.choice([8, 8, 16, 16, 32, 64]),
            draw.randint(2, 16) * 1800.0,
            start_s + draw.choice([-3600, -600, draw.randint(0, 18 * 3600)]),
            weight=draw.choice([1.0, 1.0, 2.0, 4.0]),
        )
        for i in range(150)
    )


def main() -> None:
    """Write everything to the folder."""
    parser = argparse.ArgumentParser(description="Make the input of the storage example.")
    parser.add_argument("out", type=Path, help="folder to write to")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, header, rows in (
        ("weather.csv", ("time", "dry_bulb_c", "wet_bulb_c"), weather()),
        ("prices.csv", ("time", "usd_per_mwh"), prices()),
    ):
        with (out / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    (out / "jobs.csv").write_text(write_jobs(jobs()))
    shutil.copy(Path(__file__).with_name("site.toml"), out / "site.toml")


if __name__ == "__main__":
    main()
