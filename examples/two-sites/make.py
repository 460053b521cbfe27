"""Make the input of the two-site example beside this file: weather, prices and a queue with data that must stay.

    python examples/two-sites/make.py OUT
    cd OUT
    powerhall-optimizer round --site phoenix.toml --site frankfurt.toml --jobs jobs.csv --start 2026-07-15T06:00Z

Everything is made up with a fixed seed: no trace, only the shape of one (hot afternoons, dear evenings).
"""

import argparse
import csv
import math
import random
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from powerhall.jobs import Job, write_jobs

START_S = datetime(2026, 7, 15, 6, tzinfo=UTC).timestamp()
HOURS = 36
SITES = {
    # dry bulb and its swing in degC, wet-bulb depression in K, price and its swing in USD/MWh, offset from UTC in h
    "phoenix": (36.0, 8.0, 14.0, 55.0, 45.0, -7),
    "frankfurt": (21.0, 6.0, 5.0, 85.0, 40.0, 2),
}


def _wave(hour: float, offset: float, peak: float) -> float:
    return math.cos((hour + offset - peak) / 24 * 2 * math.pi)


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def queue(count: int, seed: int) -> tuple[Job, ...]:
    """Return jobs of all sizes; half of them may run anywhere, the data of the others must stay at one site."""
    draw = random.Random(seed)  # noqa: S311 - an example, no secret
    return tuple(
        Job(
            f"job{i:03d}",
            draw.choice([1, 1, 2, 4, 8, 8, 16, 32]),
            draw.randint(20, 600) * 60.0,
            START_S + max(0, draw.randint(-36_000, 72_000)),
            weight=draw.choice([1.0, 1.0, 2.0, 4.0]),
            sites=draw.choice([(), (), ("phoenix",), ("frankfurt",)]),
        )
        for i in range(count)
    )


def make(out: Path) -> None:
    """Write both sites, their weather and prices, and the queue into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for name, (dry, swing, depression, price, price_swing, offset) in SITES.items():
        shutil.copy(Path(__file__).with_name(f"{name}.toml"), out / f"{name}.toml")
        start_h = START_S / 3600
        hours = [(start_h + h) % 24 for h in range(HOURS)]
        weather = [
            (START_S + i * 3600, round(t := dry + swing * _wave(h, offset, 16), 2), round(t - depression, 2))
            for i, h in enumerate(hours)
        ]
        _write(out / f"{name}-weather.csv", ("time", "dry_bulb_c", "wet_bulb_c"), weather)
        prices = [
            (START_S + i * 3600, round(price + price_swing * _wave(h, offset, 19), 2)) for i, h in enumerate(hours)
        ]
        _write(out / f"{name}-prices.csv", ("time_s", "usd_per_mwh"), prices)
    (out / "jobs.csv").write_text(write_jobs(queue(240, 7)), encoding="utf-8")


def main() -> int:
    """Write the example's input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    make(args.out)
    sys.stdout.write(f"{args.out}: the plan begins at {datetime.fromtimestamp(START_S, UTC).isoformat()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
