"""A store for each hall against one for all: points per second, CPU of the servers, and query times.

The same points go to one InfluxDB 1.8.3 and to one for each hall, by one writer for each hall in the agents' batches
(1 MiB, gzip, /api/v2/write); then the same queries ask both. Everything runs on this machine: where it has fewer cores
than servers, points per second of all of them cannot grow with their number, and the CPU time for a million points says
what each server would take on cores of its own.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from powerhall.store import Query, Select, Store, open_store  # noqa: E402
from rigs import influxdb  # noqa: E402

END_S = 1_790_035_200
BATCH_BYTES = 1024 * 1024
GPUS = 8
GPU = (
    "power_w={0}.0,power_min_w={0}.0,power_max_w={0}.5,energy_j={1}.0,temp_c=61.0,util_percent=97.0,"
    "mem_used_bytes=60000000000.0,sm_clock_mhz=1755.0,power_limit_w=700.0,clocks_event_reasons=0.0"
)


@dataclass(frozen=True, slots=True)
class Size:
    """Nodes of eight GPUs in each hall, minutes of their points (one every ten seconds), repeats of each query."""

    nodes: int
    minutes: int
    repeats: int


@dataclass(slots=True)
class Server:
    """An InfluxDB and the CPU time that it has taken."""

    rig: influxdb.InfluxRig

    def cpu_s(self) -> float:
        """Return the CPU time of all of its threads."""
        tasks = Path(f"/proc/{self.rig.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def batches(hall: str, size: Size) -> list[tuple[bytes, int]]:
    """Return a hall's points in the agents' batches, each with its number of points."""
    found, lines, bytes_ = [], list[bytes](), 0
    heads = [f"site=s,hall={hall},rack={hall}/r{node // 4},node={hall}n{node}" for node in range(size.nodes)]
    for time_s in range(END_S - 60 * size.minutes, END_S, 10):
        for head in heads:
            watts = 480 + (time_s // 10 + len(head)) % 170
            lines.append(f"node,{head} gpu_power_w={8 * watts}.0,gpus=8.0,gpus_up=8.0 {time_s}000\n".encode())
            for gpu in range(GPUS):
                lines.append(f"gpu,{head},gpu={gpu} {GPU.format(watts + gpu, time_s)} {time_s}000\n".encode())
                lines.append(
                    f'gpu_state,{head},gpu={gpu} up=1.0,reason="ok",call_latency_s=0.001 {time_s}000\n'.encode()
                )
            bytes_ = sum(map(len, lines)) if len(lines) % 512 == 0 else bytes_
            if bytes_ > BATCH_BYTES:
                found.append((b"".join(lines), len(lines)))
                lines, bytes_ = [], 0
    return [*found, (b"".join(lines), len(lines))]


@contextmanager
def servers(count: int) -> Iterator[list[Server]]:
    """Start servers with an empty database each."""
    with ExitStack() as stack:
        started = [Server(stack.enter_context(influxdb.start_1_8())) for _ in range(count)]
        for server in started:
            server.rig.database("power")
        yield started


def ingest(parts: Sequence[list[tuple[bytes, int]]], started: Sequence[Server]) -> dict[str, float]:
    """Write each hall's batches by a writer of its own, hall i to server i modulo their number; return the figures."""
    stores = [open_store(started[hall % len(started)].rig.url("power")) for hall in range(len(parts))]
    before = [server.cpu_s() for server in started]

    def write(hall: int) -> int:
        for body, _ in parts[hall]:
            stores[hall].write(body)
        return sum(points for _, points in parts[hall])

    for store in stores:
        store.server_time_s()  # connect
    begun_s, own_s = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(len(parts)) as threads:
        points = sum(threads.map(write, range(len(parts))))
    took_s, own_s = time.perf_counter() - begun_s, time.process_time() - own_s
    cpu_s = sum(server.cpu_s() for server in started) - sum(before)
    for store in stores:
        store.close()
    return {
        "points": points,
        "points_per_s": points / took_s,
        "server_cpu_s_per_million": 1e6 * cpu_s / points,
        "writers_cpu_s_per_million": 1e6 * own_s / points,
    }


def questions(hall: str) -> dict[str, tuple[Query, float]]:
    """Return what the parts of Powerhall ask of raw points, and over how many seconds."""
    power = (Select("power_w", "mean"), Select("power_w", "max", "most_w"), Select("power_w", "min", "least_w"))
    return {
        "panel of a node, 1 h": (Query("gpu", power[:1], {"node": f"{hall}n3"}, ("gpu",), 60.0), 3600.0),
        "roll-up of a hall": (Query("gpu", power, {"site": "s", "hall": hall}, ("node", "gpu"), 10.0), 150.0),
        "round: fresh nodes of the site": (
            Query("node", (Select("gpus_up", "last"),), {"site": "s"}, ("node",)),
            120.0,
        ),
        "round: power of every node": (
            Query("node", (Select("gpu_power_w", "mean"),), {"site": "s"}, ("node",)),
            600.0,
        ),
    }


def ask(store: Store, hall: str, repeats: int) -> dict[str, tuple[float, float, int]]:
    """Return median, 95th percentile in s and rows of each question."""
    found = {}
    for name, (query, span_s) in questions(hall).items():
        store.query(query, END_S - span_s, END_S)
        times = []
        for _ in range(repeats):
            begun_s = time.perf_counter()
            rows = len(store.query(query, END_S - span_s, END_S))
            times.append(time.perf_counter() - begun_s)
        p95_s = statistics.quantiles(times, n=20, method="inclusive")[18]
        found[name] = statistics.median(times), p95_s, rows
    return found


def as_one(started: Sequence[Server], halls: Sequence[str], folder: str) -> Store:
    """Open the servers of the halls, and a site's beside them, as one store."""
    lines = [f'site = "{started[-1].rig.url("power")}"', "[halls]"]
    lines += [f'{hall} = "{server.rig.url("power")}"' for hall, server in zip(halls, started, strict=False)]
    file = Path(folder) / "stores.toml"
    file.write_text("\n".join(lines) + "\n")
    return open_store(f"halls:///{file}")


def run_halls(count: int, size: Size) -> dict[str, float]:
    """Measure one server with all halls, then 1, 2, ... servers with a hall each, and print the figures."""
    if not influxdb.BUILT.exists():
        print("InfluxDB 1.8.3 is not built: make influxd")
        return {}
    halls = [f"hall{number}" for number in range(count)]
    parts = [batches(hall, size) for hall in halls]
    figures: dict[str, float] = {}
    print(f"{count} halls of {size.nodes} nodes with {GPUS} GPUs, {size.minutes} min; {os.cpu_count()} CPUs")
    print(f"{'stores':<22} {'points':>9} {'points/s':>9} {'server CPU s/M':>15} {'writers CPU s/M':>16}")
    with servers(1) as one, tempfile.TemporaryDirectory() as folder:
        figures |= _told("one_server", ingest(parts, one))
        store = open_store(one[0].rig.url("power"))
        single = ask(store, halls[-1], size.repeats)
        store.close()
        for number in sorted({2**n for n in range(count.bit_length())} | {count}):
            if number > count:
                continue
            with servers(number + 1) as started:  # one more for the site
                figures |= _told(f"{number}_hall_servers", ingest(parts[:number], started[:-1]))
                if number == count:
                    store = as_one(started, halls, folder)
                    several = ask(store, halls[-1], size.repeats)
                    store.close()
    print(f"{'query':<34} {'rows':>6} {'one: p50 ms':>12} {'p95 ms':>8} {'halls: p50 ms':>14} {'p95 ms':>8}")
    for name, (p50, p95, rows) in single.items():
        other50, other95, others = several[name]
        print(f"{name:<34} {rows:>6} {p50 * 1e3:>12.1f} {p95 * 1e3:>8.1f} {other50 * 1e3:>14.1f} {other95 * 1e3:>8.1f}")
        assert rows == others, f"{name}: {rows} rows of one store, {others} of several"
        figures |= {f"one_server_p95_s: {name}": p95, f"hall_servers_p95_s: {name}": other95}
    return figures


def _told(name: str, found: dict[str, float]) -> dict[str, float]:
    values = list(found.values())
    print(f"{name:<22} {values[0]:>9,.0f} {values[1]:>9,.0f} {values[2]:>15.1f} {values[3]:>16.1f}", flush=True)
    return {f"{name}_{key}": value for key, value in found.items()}
