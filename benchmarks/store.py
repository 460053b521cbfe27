"""Query time of every panel of Site overview, Hall and Cooling over 24 hours on a large site, and ingest rate.

A real InfluxDB 1.6 on loopback holds 24 hours of 15 halls, 5,000 racks (every ten seconds and every five minutes) and
1,000 raw GPUs (every ten seconds). Filling it takes minutes; the data stays in --data, and the next run continues where
this one stopped. Each panel is queried as Grafana does: over its range, with the interval that its width gives.
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
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from store_halls import Size, run_halls  # noqa: E402

from powerhall.store import Query, Store, open_store  # noqa: E402
from powerhall_dashboards.boards import BOARDS  # noqa: E402
from rigs import influxdb  # noqa: E402

SEED = 20260701
END_S = 1_790_035_200
DAY_S = 86_400
HALLS = 15
AGENT_BATCH_BYTES = 1024 * 1024
LOAD_LINES = 20_000
POOL = 4096
TARGET_S = 0.3
TUNING = 'cache-max-memory-size = "6g"\n  cache-snapshot-memory-size = "512m"\n'
CHOICES: dict[str, tuple[tuple[str, dict[str, tuple[str, ...]]], ...]] = {
    "powerhall-site": (("", {}),),
    "powerhall-hall": (("", {"hall": ("hall00",)}),),
    "powerhall-cooling": (("all halls", {}),),
}
RACK = (
    "it_power_w={0:.1f},budget_w=140000.0,headroom_w={1:.1f},planned_w={0:.1f},temp_max_c={2:.1f},gpus=32.0,"
    "gpus_busy={3}.0,gpus_throttled={4}.0,gpus_lost=0.0,nodes=4.0,nodes_stale=0.0"
)
ZONE = (
    "it_power_w={0:.1f},cooling_power_w={1:.1f},loss_power_w={2:.1f},facility_power_w={3:.1f},heat_w={0:.1f},"
    "cooling_capacity_w={6:.1f},budget_w={7:.1f},headroom_w={4:.1f},planned_w={0:.1f},temp_max_c={5:.1f},"
    "gpus=10667.0,gpus_busy=10400.0,gpus_throttled={8}.0,gpus_lost=1.0,nodes=1334.0,nodes_stale=0.0"
)
GPU = (
    "power_w={0:.1f},power_min_w={1:.1f},power_max_w={2:.1f},energy_j={3:.1f},temp_c={4:.1f},util_percent={5:.1f},"
    "mem_used_bytes=60000000000.0,sm_clock_mhz={6:.1f},power_limit_w=700.0,clocks_event_reasons=0.0"
)
Lines = Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Scale:
    """Amount of data, and how often each panel is queried."""

    racks: int
    gpus: int
    hours: int
    repeats: int


@dataclass(slots=True)
class Pools:
    """Rendered records to draw from, made once, so that filling measures the store and not the random numbers."""

    chance: random.Random = field(default_factory=lambda: random.Random(SEED))

    def of(self, render: Callable[[random.Random], str]) -> Iterator[bytes]:
        """Yield records for ever, in an order that does not repeat with the pool's length."""
        pool = [render(self.chance).encode() for _ in range(POOL)]
        while True:
            start = self.chance.randrange(POOL)
            yield from pool[start:]
            yield from pool[:start]


def zone_record(it_base_w: float) -> Callable[[random.Random], str]:
    def render(chance: random.Random) -> str:
        it_w = it_base_w * chance.uniform(0.8, 1.0)
        budget_w = it_base_w * 1.25
        figures = (it_w * 0.12, it_w * 0.04, it_w * 1.16, budget_w - it_w * 1.16, chance.uniform(55, 75))
        return ZONE.format(it_w, *figures, it_base_w * 1.3, budget_w, chance.randrange(20))

    return render


def rack_record(chance: random.Random) -> str:
    it_w = 1.2e5 * chance.uniform(0.8, 1.0)
    return RACK.format(it_w, 140_000 - it_w, chance.uniform(55, 75), chance.randrange(28, 33), chance.randrange(3))


def gpu_record(chance: random.Random) -> str:
    power_w = chance.uniform(450, 690)
    energy_j = power_w * 1e5
    figures = (power_w - 40, power_w + 30, energy_j, 30 + power_w / 15, chance.uniform(90, 100))
    return GPU.format(power_w, *figures, chance.uniform(1700, 1980))


def series_lines(heads: list[bytes], records: Iterator[bytes], times_s: range) -> Lines:
    for at in times_s:
        stamp = b" %d000\n" % at
        for head in heads:
            yield head + next(records) + stamp


def halls_head(name: str) -> list[bytes]:
    return [b"%s,site=big,hall=hall%02d " % (name.encode(), hall) for hall in range(HALLS)]


def rack_heads(name: str, racks: int) -> list[bytes]:
    form = b"%s,site=big,hall=hall%02d,rack=hall%02d/a/r%04d "
    return [form % (name.encode(), rack % HALLS, rack % HALLS, rack) for rack in range(racks)]


def gpu_heads(gpus: int) -> list[bytes]:
    form = b"gpu,site=big,hall=hall00,rack=hall00/a/r%04d,node=n%04d,gpu=%d "
    return [form % (number // 32 * HALLS, number // 8, number % 8) for number in range(gpus)]


def zone_lines(pools: Pools) -> Lines:
    for suffix, every_s in (("10s", 10), ("5m", 300)):
        times_s = range(END_S - DAY_S, END_S, every_s)
        yield from series_lines([b"site_%s,site=big " % suffix.encode()], pools.of(zone_record(6e8)), times_s)
        yield from series_lines(halls_head(f"hall_{suffix}"), pools.of(zone_record(4e7)), times_s)


def rare_lines(pools: Pools) -> Lines:
    """Render weather, forecasts, events, leases and meters."""
    zones = ("big", *(f"hall{hall:02d}" for hall in range(HALLS)))
    for at in range(END_S - DAY_S, END_S + DAY_S, 300):
        yield b"weather,site=big wet_bulb_c=19.5,dry_bulb_c=33.0 %d000\n" % at
        for zone in zones:
            fields = "planned_w=4e7,budget_w=5e7,headroom_w=1e7,heat_w=4e7,cooling_capacity_w=5.2e7"
            yield f"plan_zone,site=big,zone={zone} {fields} {at}000\n".encode()
    for number in range(500):
        at = END_S - pools.chance.randrange(DAY_S)
        hall, kind = number % HALLS, ("xid", "curtailment", "plan_change")[number % 3]
        fields = f'code=13.0,severity=1.0,detail="event {number}"'
        yield f"event,site=big,hall=hall{hall:02d},kind={kind} {fields} {at}000\n".encode()
    for at in range(END_S - 3600, END_S, 60):
        for node in range(1334):
            fields = f"cap_w=7000.0,safe_cap_w=3000.0,expires_s={at + 600}.0"
            yield f"lease,site=big,hall=hall00,node=n{node:04d} {fields} {at}000\n".encode()
        for hall in range(HALLS):
            for point in ("supply_temp_c", "return_temp_c", "flow_l_per_min", "power_w"):
                tags = f"facility,site=big,hall=hall{hall:02d},device=cdu1,point={point}"
                yield f"{tags} value=32.0,quality=1.0 {at}000\n".encode()


Part = tuple[str, Callable[[], Lines]]


def parts(scale: Scale) -> Iterator[Part]:
    """Yield the records of the store, large measurements hour by hour."""
    pools = Pools()
    yield "site and halls", lambda: zone_lines(pools)
    yield "weather, plan, events, leases, meters", lambda: rare_lines(pools)
    day_s = range(END_S - DAY_S, END_S, 300)
    coarse = rack_heads("rack_5m", scale.racks)
    yield "rack_5m", lambda: series_lines(coarse, pools.of(rack_record), day_s)
    for ago in (1, *range(scale.hours, 1, -1)):  # the last hour first: most panels read it
        hour_s = range(END_S - ago * 3600, END_S - (ago - 1) * 3600, 10)
        gpus, racks = gpu_heads(scale.gpus), rack_heads("rack_10s", scale.racks)
        # Nodes one after the other, not times: the store then sorts least, and sorting is not part of the measurement.
        yield f"gpu hour -{ago}", lambda h=hour_s, g=gpus: by_series(g, pools.of(gpu_record), h)
        yield f"rack_10s hour -{ago}", lambda h=hour_s, r=racks: by_series(r, pools.of(rack_record), h)


def by_series(heads: list[bytes], records: Iterator[bytes], times_s: range) -> Lines:
    stamps = [b" %d000\n" % at for at in times_s]
    for head in heads:
        for stamp in stamps:
            yield head + next(records) + stamp


def load(port: int, database: str, lines: Lines) -> int:
    """Write to influxd directly at full speed; return the number of points."""
    address = f"http://127.0.0.1:{port}/write?db={database}&precision=ms"
    points, batch = 0, []
    for line in lines:
        batch.append(line)
        if len(batch) == LOAD_LINES:
            urllib.request.urlopen(address, b"".join(batch), timeout=300).close()
            points, batch = points + len(batch), []
    if batch:
        urllib.request.urlopen(address, b"".join(batch), timeout=300).close()
    return points + len(batch)


def fill(rig: influxdb.InfluxRig, folder: Path, scale: Scale, seconds: float) -> dict[str, int]:
    """Write the parts that are missing, for `seconds` at most; return points by part."""
    record = folder / "loaded.json"
    loaded: dict[str, int] = json.loads(record.read_text()) if record.exists() else {}
    if not loaded:
        rig.database("bench")
    until = time.monotonic() + seconds
    for name, lines in parts(scale):
        if name not in loaded and time.monotonic() < until:
            began = time.monotonic()
            loaded[name] = load(rig.port, "bench", lines())
            record.write_text(json.dumps(loaded, indent=1) + "\n")
            rate = loaded[name] / (time.monotonic() - began)
            print(f"  loaded {name}: {loaded[name]:,} points, {rate:,.0f} points/s", flush=True)
    return loaded


def ingest(store: Store, gpus: int) -> tuple[int, float]:
    """Write five minutes of GPUs in the agent's batches (1 MiB, gzip, /api/v2/write); return points and seconds."""
    lines = series_lines(gpu_heads(gpus), Pools().of(gpu_record), range(END_S, END_S + 300, 10))
    points, seconds, batch, size = 0, 0.0, list[bytes](), 0
    for line in lines:
        batch.append(line)
        size += len(line)
        points += 1
        if size > AGENT_BATCH_BYTES:
            seconds, batch, size = seconds + timed_write(store, batch), [], 0
    return points, seconds + timed_write(store, batch)


def timed_write(store: Store, batch: list[bytes]) -> float:
    body = b"".join(batch)
    started = time.perf_counter()
    store.write(body)
    return time.perf_counter() - started


def ask_panel(store: Store, queries: tuple[Query, ...], start_s: float, end_s: float) -> tuple[float, int]:
    started = time.perf_counter()
    rows = sum(len(store.query(query, start_s, end_s)) for query in queries)
    return time.perf_counter() - started, rows


def measure(store: Store, repeats: int) -> Iterator[tuple[str, str, float, float, int]]:
    """Yield dashboard, panel, p50, p95 and rows of each panel over 24 hours."""
    for board in BOARDS:
        for words, chosen in CHOICES.get(board.uid, ()):
            for panel in board.panels:
                start_s, end_s = END_S - (panel.recent_s or DAY_S), END_S
                if panel.future:
                    start_s, end_s = END_S, END_S + (panel.recent_s or 0)
                wide_s = (end_s - start_s) / panel.points
                queries = tuple(query.bind({"site": ("big",)} | chosen).bucketed(wide_s) for query in panel.queries)
                ask_panel(store, queries, start_s, end_s)
                answers = [ask_panel(store, queries, start_s, end_s) for _ in range(repeats)]
                times = sorted(seconds for seconds, _ in answers)
                p95 = statistics.quantiles(times, n=20, method="inclusive")[18]
                name = f"{board.title.removeprefix('Powerhall: ')}{', ' if words else ''}{words}"
                yield name, panel.title, statistics.median(times), p95, answers[-1][1]


def report(name: str, store: Store, scale: Scale) -> dict[str, float]:
    """Measure one filled store; print its table and return flat figures in SI units."""
    print(f"{'dashboard over 24 h':<40} {'panel':<34} {'rows':>7} {'p50 ms':>8} {'p95 ms':>8}")
    worst: dict[str, float] = {}
    within = count = 0
    for board, panel, p50, p95, rows in measure(store, scale.repeats):
        mark = "" if p95 <= TARGET_S else "  above target"
        print(f"{board:<40} {panel:<34} {rows:>7} {p50 * 1e3:>8.1f} {p95 * 1e3:>8.1f}{mark}", flush=True)
        worst[board] = max(worst.get(board, 0.0), p95)
        within, count = within + (p95 <= TARGET_S), count + 1
    points, seconds = ingest(store, scale.gpus)
    figures = {f"{name}_p95_max_s: {board}": p95 for board, p95 in worst.items()}
    figures |= {f"{name}_panels": count, f"{name}_panels_within_target": within}
    figures |= {f"{name}_ingest_points_per_s": points / seconds}
    for key, value in figures.items():
        print(f"{key:<76} {value:>14,.3f}")
    return figures


def run_influxdb(folder: Path, scale: Scale, load_s: float) -> dict[str, float]:
    """Fill and measure InfluxDB."""
    folder = folder / f"{scale.racks}-{scale.gpus}-{scale.hours}"
    with influxdb.start(keep=folder, tuning=TUNING) as rig:
        loaded = fill(rig, folder, scale, load_s)
        wanted = [name for name, _ in parts(scale)]
        kinds = {name.partition(" hour")[0]: 0 for name in wanted}
        for name, points in loaded.items():
            kinds[name.partition(" hour")[0]] += points
        print("InfluxDB 1.6 holds " + ", ".join(f"{points:,} points of {kind}" for kind, points in kinds.items()))
        if len(loaded) < len(wanted):
            print(f"{len(wanted) - len(loaded)} of {len(wanted)} parts are not loaded yet; run again to go on")
            return {}
        store = open_store(rig.url("bench"))
        figures = report("influxdb_1_6", store, scale)
        store.close()
    return figures


def run_sqlite(scale: Scale) -> dict[str, float]:
    """Fill and measure the embedded store."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/bench.db")
        for _, lines in parts(scale):
            batch = []
            for line in lines():
                batch.append(line)
                if len(batch) == LOAD_LINES:
                    store.write(b"".join(batch))
                    batch = []
            store.write(b"".join(batch))
        print("SQLite, the same")
        figures = report("sqlite", store, scale)
        store.close()
    return figures


def main() -> int:
    """Run the benchmark and print one table per store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 racks, 200 GPUs, the last hour of both, 5 repeats")
    parser.add_argument("--hours", type=int, default=24, help="hours of rack_10s and raw GPUs (default: %(default)s)")
    parser.add_argument("--sqlite", action="store_true", help="the embedded store too (with --quick always)")
    parser.add_argument("--data", type=Path, default=ROOT / "out/bench-store", metavar="DIR", help="kept between runs")
    parser.add_argument("--load-seconds", type=float, default=1e9, help="stop filling after this long; run again")
    parser.add_argument(
        "--halls", type=int, default=0, metavar="N", help="only: a server for each of N halls against one"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args()
    scale = Scale(500, 200, 1, 5) if options.quick else Scale(5000, 1000, options.hours, 20)
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, seed {SEED}")
    print(f"{scale}; load {os.getloadavg()[0]:.1f}")
    figures: dict[str, float] = {}
    if options.halls:
        figures = run_halls(options.halls, Size(16, 10, 10) if options.quick else Size(64, 30, 20))
    elif reason := influxdb.missing():
        print(f"InfluxDB: left out: {reason}")
    else:
        figures |= run_influxdb(options.data, scale, options.load_seconds)
    if (options.sqlite or options.quick) and not options.halls:
        figures |= run_sqlite(scale)
    figures |= {"racks": scale.racks, "gpus": scale.gpus, "load_1min": os.getloadavg()[0]}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
