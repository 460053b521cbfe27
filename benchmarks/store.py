"""What a dashboard costs on a large site: every panel of Site overview and Hall, and how fast points go in.

A real InfluxDB 1.6 on loopback (and with --sqlite the embedded store) holds 15 halls and the site over 24 hours, 5,000
racks and 1,000 raw GPUs over the last hour. The two dashboards read racks and GPUs over 15 minutes at most, whatever
range is chosen, which is why an hour of those is enough. Each panel is asked with the interval that Grafana would use.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from powerhall.store import Query, Store, open_store  # noqa: E402
from powerhall_dashboards.boards import BOARDS  # noqa: E402
from rigs import influxdb  # noqa: E402

SEED = 20260701
END_S = 1_790_000_100
DAY_S = 86_400
HALLS = 15
BATCH_LINES = 5000
TARGET_S = 0.3
BOARD_UIDS = ("powerhall-site", "powerhall-hall")
ROLLUP = (
    "it_power_w={0:.1f},cooling_power_w={1:.1f},loss_power_w={2:.1f},facility_power_w={3:.1f},heat_w={0:.1f},"
    "cooling_capacity_w=9000000.0,budget_w=6000000.0,headroom_w={4:.1f},planned_w={0:.1f},temp_max_c={5:.1f},"
    "gpus=24000.0,gpus_busy=22000.0,gpus_throttled={6}.0,gpus_lost=1.0,nodes=3000.0,nodes_stale=0.0"
)
GPU = (
    "power_w={0:.1f},power_min_w={1:.1f},power_max_w={2:.1f},energy_j={3:.1f},temp_c={4:.1f},util_percent=97.0,"
    "mem_used_bytes=60000000000.0,sm_clock_mhz=1980.0,power_limit_w=700.0,clocks_event_reasons=0.0"
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is stored."""

    racks: int
    gpus: int
    recent_s: int
    repeats: int


def rollup_fields(chance: random.Random, base_w: float) -> str:
    it_w = base_w * chance.uniform(0.8, 1.0)
    return ROLLUP.format(
        it_w, it_w * 0.12, it_w * 0.04, it_w * 1.16, 6e6 - it_w, chance.uniform(55, 75), chance.randrange(20)
    )


def zone_lines(chance: random.Random) -> Iterator[str]:
    for at in range(END_S - DAY_S, END_S, 10):
        yield f"site_10s,site=big {rollup_fields(chance, 7e7)} {at}000"
        for hall in range(HALLS):
            yield f"hall_10s,site=big,hall=hall{hall:02d} {rollup_fields(chance, 5e6)} {at}000"
    for at in range(END_S - DAY_S, END_S + DAY_S, 300):
        yield f"weather,site=big wet_bulb_c=19.5,dry_bulb_c=33.0 {at}000"
        for zone in ("big", *(f"hall{hall:02d}" for hall in range(HALLS))):
            fields = "planned_w=4000000.0,budget_w=5000000.0,headroom_w=1000000.0,heat_w=4000000.0"
            yield f"plan_zone,site=big,zone={zone} {fields} {at}000"


def rack_lines(chance: random.Random, scale: Scale) -> Iterator[str]:
    for at in range(END_S - scale.recent_s, END_S, 10):
        for rack in range(scale.racks):
            hall = rack % HALLS
            tags = f"site=big,hall=hall{hall:02d},rack=hall{hall:02d}/a/r{rack:04d}"
            yield f"rack_10s,{tags} {rollup_fields(chance, 1.2e5)} {at}000"


def gpu_lines(chance: random.Random, scale: Scale) -> Iterator[str]:
    """Points of the hot set, as an agent sends them."""
    for at in range(END_S - scale.recent_s, END_S, 10):
        for number in range(scale.gpus):
            node, power_w = number // 8, chance.uniform(450, 690)
            head = f"gpu,site=big,hall=hall00,rack=hall00/a/r{node // 4:04d},node=n{node:04d},gpu={number % 8}"
            fields = GPU.format(power_w, power_w - 40, power_w + 30, power_w * (at - END_S + DAY_S), 30 + power_w / 15)
            yield f"{head} {fields} {at}000"


def event_lines(chance: random.Random) -> Iterator[str]:
    for number in range(500):
        at = END_S - chance.randrange(DAY_S)
        hall, kind = number % HALLS, ("xid", "curtailment", "plan_change")[number % 3]
        yield f'event,site=big,hall=hall{hall:02d},kind={kind} code=13.0,severity=1.0,detail="event {number}" {at}000'
    for node in range(200):
        fields = f"cap_w=7000.0,safe_cap_w=3000.0,expires_s={END_S + 600}.0"
        yield f"lease,site=big,hall=hall00,node=n{node:04d} {fields} {END_S - 60}000"


def fill(store: Store, lines: Iterator[str]) -> tuple[int, float]:
    """Write in the agent's batches; return points and the seconds that the store itself took."""
    points, seconds, batch = 0, 0.0, []
    for line in lines:
        batch.append(line)
        if len(batch) == BATCH_LINES:
            points, seconds, batch = points + len(batch), seconds + timed_write(store, batch), []
    return points + len(batch), seconds + (timed_write(store, batch) if batch else 0.0)


def timed_write(store: Store, batch: list[str]) -> float:
    body = ("\n".join(batch) + "\n").encode()
    started = time.perf_counter()
    store.write(body)
    return time.perf_counter() - started


def ask_panel(store: Store, queries: tuple[Query, ...], start_s: float, end_s: float) -> tuple[float, int]:
    started = time.perf_counter()
    rows = sum(len(store.query(query, start_s, end_s)) for query in queries)
    return time.perf_counter() - started, rows


def measure(store: Store, scale: Scale) -> dict[str, tuple[float, float, int]]:
    """Return p50, p95 and rows of each panel over 24 hours."""
    found = {}
    for board in BOARDS:
        if board.uid not in BOARD_UIDS:
            continue
        chosen = {"site": ("big",)} | ({"hall": ("hall00",)} if board.uid == "powerhall-hall" else {})
        for panel in board.panels:
            start_s, end_s = END_S - (panel.recent_s or DAY_S), END_S
            if panel.future:
                start_s, end_s = END_S, END_S + (panel.recent_s or 0)
            wide_s = (end_s - start_s) / panel.points
            queries = tuple(query.bind(chosen).bucketed(wide_s) for query in panel.queries)
            ask_panel(store, queries, start_s, end_s)
            answers = [ask_panel(store, queries, start_s, end_s) for _ in range(scale.repeats)]
            times = sorted(seconds for seconds, _ in answers)
            p95 = statistics.quantiles(times, n=20, method="inclusive")[18]
            found[f"{board.uid}: {panel.title}"] = (statistics.median(times), p95, answers[-1][1])
    return found


def run_store(name: str, url: str, scale: Scale) -> dict[str, float]:
    """Fill and measure one store; print its table and return flat figures in SI units."""
    chance = random.Random(SEED)
    store = open_store(url)
    zones, zone_s = fill(store, zone_lines(chance))
    fill(store, event_lines(chance))
    gpus, gpu_s = fill(store, gpu_lines(chance, scale))
    racks, rack_s = fill(store, rack_lines(chance, scale))
    panels = measure(store, scale)
    store.close()
    print(f"\n{name}: {zones:,} points of site and halls, {racks:,} of racks, {gpus:,} of GPUs")
    print(f"{'panel (24 h)':<58} {'rows':>7} {'p50 ms':>8} {'p95 ms':>8}")
    for title, (p50, p95, rows) in panels.items():
        print(f"{title:<58} {rows:>7} {p50 * 1e3:>8.1f} {p95 * 1e3:>8.1f}{'  above target' if p95 > TARGET_S else ''}")
    figures = {
        f"{name}_gpu_ingest_points_per_s": gpus / gpu_s,
        f"{name}_rollup_ingest_points_per_s": (zones + racks) / (zone_s + rack_s),
        f"{name}_panel_p95_max_s": max(p95 for _, p95, _ in panels.values()),
        f"{name}_panels_within_target": sum(p95 <= TARGET_S for _, p95, _ in panels.values()),
        f"{name}_panels": len(panels),
    }
    for key, value in figures.items():
        print(f"{key:<58} {value:>14,.3f}")
    return figures


def main() -> int:
    """Run the benchmark and print one table per store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 racks, 200 GPUs, 15 minutes, 5 repeats")
    parser.add_argument("--sqlite", action="store_true", help="the embedded store too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args()
    scale = Scale(500, 200, 900, 5) if options.quick else Scale(5000, 1000, 3600, 20)
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, seed {SEED}")
    print(f"{scale}; load {os.getloadavg()[0]:.1f}")
    figures: dict[str, float] = {}
    if reason := influxdb.missing():
        print(f"InfluxDB: left out: {reason}")
    else:
        with influxdb.start() as rig:
            figures |= run_store("influxdb_1_6", rig.url(rig.database("bench")), scale)
    if options.sqlite or options.quick:
        with tempfile.TemporaryDirectory() as folder:
            figures |= run_store("sqlite", f"sqlite:///{folder}/bench.db", scale)
    figures |= {"racks": scale.racks, "gpus": scale.gpus, "load_1min": os.getloadavg()[0]}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
