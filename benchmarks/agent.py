"""The node agent beside its peers: CPU, memory, encoding, freshness, disk use of an outage.

The agent and its peers read the same simulated C library (tests/rigs/nvml, 8 GPUs) through pynvml. The first run
installs the peers (nvitop, zeus-ml, gpustat) from PyPI into a virtual environment outside the checkout.

cpu_percent                   CPU of one core: daemon and sampler with all threads, 10 Hz and 1 Hz sets, delivered
cpu_per_sample_ratio_PEER     CPU of one sample of the peer over one of ours, like for like: the values that the peer
                              reads (as far as our schema has them), 20 times a second, in a process that a clock wakes,
                              measured as the kernel's CPU time of its process tree; cpu_per_sample_ratio is the least
cpu_per_value_ratio_PEER      the same per value that the library gave
PEER_sample_ms, _calls,       one sample of eight GPUs by the peer: CPU, library calls, values; our_PEER_set_* is ours
  _values                     of the same values; our_full_set_* is ours of everything: a whole tick
encode_ratio                  lines per second of our encoder over influxdb-client's Point, for the agent's own points
outage_mb_per_day             disk that a day without a store takes: a minute of lines, packed as the spool packs them
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from powerhall.store.line_protocol import parse_lines
from powerhall_agent.base.encoder import Series
from powerhall_agent.delivery.segment import pack, scan, unpack
from powerhall_agent.delivery.spool import segments_of

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "rigs" / "nvml")]
import peers_rig  # noqa: E402

from rigs import influxdb  # noqa: E402

ENTRY = "import sys; from powerhall_agent.entry import main; sys.exit(main())"
TARGETS = {
    "cpu_percent": ("<=", 0.5),
    "pss_mib": ("<=", 48.0),
    "encode_ratio": (">=", 10.0),
    "cpu_per_sample_ratio": (">=", 10.0),
    "cpu_per_sample_ratio_nvitop": (">=", 10.0),
    "cpu_per_sample_ratio_gpustat": (">=", 10.0),
    "cpu_per_sample_ratio_zeus_ml": (">=", 10.0),
    "freshness_p99_s": ("<=", 3.0),
    "outage_mb_per_day": ("<=", 60.0),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="45 s of running instead of 5 min, fewer repeats")
    parser.add_argument("--no-peers", action="store_true", help="leave out the peers (no network)")
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "powerhall" / "agent-peers"
    parser.add_argument(
        "--peers-venv", type=Path, default=default, help=f"virtual environment of the peers (default: {default})"
    )
    arguments = parser.parse_args()
    figures: dict[str, float | str] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}",
        "python": platform.python_version(),
        "nvidia_ml_py": version("nvidia-ml-py"),
        "influxdb_client": version("influxdb-client"),
        "seed": 1,
        "load_average_at_start": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory(prefix="powerhall-bench-") as name, peers_rig.simulated_node(Path(name)) as env:
        folder = Path(name)
        figures |= encoding(env, repeats=3 if arguments.quick else 7)
        figures |= running(folder, env, 45.0 if arguments.quick else 300.0)
        if not arguments.no_peers:
            figures |= peers_rig.compare(folder, env, arguments.peers_venv, 5.0 if arguments.quick else 20.0)
    print(table(figures))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def encoding(env: dict[str, str], repeats: int) -> dict[str, float]:
    """Measure points per second of our encoder and of influxdb-client's Point, for points just taken by the agent."""
    from influxdb_client import Point, WritePrecision

    command = [sys.executable, "-c", ENTRY, "once", "--node", "bench", "--format", "line"]
    lines = subprocess.run(command, env=env, capture_output=True, check=True).stdout
    points = [point for point in parse_lines(lines) if point.measurement == "gpu"]
    dice = random.Random(1)
    rows = []
    for number in range(4000):
        # the agent names its fields by the same strings again and again
        row = {sys.intern(key): value for key, value in points[number % len(points)].fields.items()}
        rows.append({k: round(float(v) * dice.uniform(0.9, 1.1), 3) if "power" in k else v for k, v in row.items()})
    series = Series("gpu", points[0].tags)

    def ours() -> None:
        for number, row in enumerate(rows):
            series.encode(row, 1_700_000_000_000 + number)

    def theirs() -> None:
        for number, row in enumerate(rows):
            point = Point("gpu")
            for key, value in series.tags.items():
                point.tag(key, value)
            for key, value in row.items():
                point.field(key, value)
            point.time(1_700_000_000_000 + number, WritePrecision.MS).to_line_protocol()

    mine = len(rows) / statistics.median(_cpu_of(ours) for _ in range(repeats))
    peer = len(rows) / statistics.median(_cpu_of(theirs) for _ in range(repeats))
    figures = {"encode_fields": len(rows[0]), "encode_points_per_s": mine, "encode_point_class_per_s": peer}
    return {**figures, "encode_ratio": mine / peer}


def _cpu_of(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def running(folder: Path, env: dict[str, str], seconds: float) -> dict[str, float | str]:
    """CPU and memory of the whole agent before a real InfluxDB (where installed), then freshness, then an outage."""
    absent = influxdb.missing()
    if absent:
        figures: dict[str, float | str] = {"store": f"SQLite ({absent})"}
        return figures | _measure(folder, env, f"sqlite:///{folder}/telemetry.db", seconds) | outage(folder, env)
    with influxdb.start() as rig:
        url = rig.url(rig.database("bench"))
        figures = {"store": "InfluxDB 1.6 behind a v2 endpoint"}
        figures |= _measure(folder, env, url, seconds, lambda: freshness(rig.port, 20.0 if seconds < 60 else 60.0))
    return figures | outage(folder, env)


def _agent(folder: Path, env: dict[str, str], url: str) -> subprocess.Popen[bytes]:
    arguments = ["run", "--node", "bench", "--store", url, "--spool", str(folder / "spool")]
    command = [sys.executable, "-c", ENTRY, *arguments]
    return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)


def _measure(
    folder: Path, env: dict[str, str], url: str, seconds: float, extra: Callable[[], dict[str, float]] = dict
) -> dict[str, float | str]:
    process = _agent(folder, env, url)
    try:
        time.sleep(12.0)
        pids = [process.pid, *_children(process.pid)]
        before, begun_s = [_cpu_s(pid) for pid in pids], time.monotonic()
        time.sleep(seconds)
        passed_s = time.monotonic() - begun_s
        spent = [100 * (_cpu_s(pid) - old) / passed_s for pid, old in zip(pids, before, strict=True)]
        memory = [_memory_mib(pid) for pid in pids]
        figures: dict[str, float | str] = {"measured_s": passed_s, "cpu_percent": sum(spent)}
        figures |= {"pss_mib": sum(m[0] for m in memory), "rss_mib": sum(m[1] for m in memory)}
        for name, cpu, (pss, rss) in zip(("daemon", "sampler"), spent, memory, strict=True):
            figures |= {f"cpu_percent_{name}": cpu, f"pss_mib_{name}": pss, f"rss_mib_{name}": rss}
        return figures | extra()
    finally:
        process.terminate()
        process.wait(20)


def freshness(port: int, seconds: float) -> dict[str, float]:
    """Measure the age of each GPU point when a reader first sees it; the reader asks every 50 ms."""
    query = {"db": "bench", "epoch": "ms", "q": "SELECT power_w FROM gpu WHERE gpu = '0' ORDER BY time DESC LIMIT 1"}
    form = urllib.parse.urlencode(query).encode()
    ages, seen, end_s = [], 0, time.monotonic() + seconds
    while time.monotonic() < end_s:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/query", form, timeout=10) as answer:
            result = json.load(answer)["results"][0].get("series")
        newest = int(result[0]["values"][0][0]) if result else 0
        if newest != seen and seen:
            ages.append(time.time() - newest / 1000)
        seen = newest
        time.sleep(0.05)
    ages.sort()
    return {
        "freshness_p50_s": statistics.median(ages),
        "freshness_p99_s": ages[min(len(ages) - 1, int(0.99 * len(ages)))],
    }


def outage(folder: Path, env: dict[str, str]) -> dict[str, float]:
    """Return the disk use of a day without a store, from one minute of the agent's lines packed like the spool."""
    process = _agent(folder / "outage", env, "influxdb://127.0.0.1:9/nowhere")
    time.sleep(60.0)
    process.terminate()
    process.wait(20)
    data = [path.read_bytes() for path in segments_of(folder / "outage" / "spool" / "store")]
    lines = b"".join(unpack(entry, scan(entry).records) for entry in data).splitlines(keepends=True)
    lines = [line for line in lines if not line.startswith(b"gpu_identity")]
    stamps = [int(line.rpartition(b" ")[2]) for line in lines]
    span_s = (max(stamps) - min(stamps)) / 1000
    text, packed, part, points = sum(map(len, lines)), 0, b"", 0
    for line in lines:
        part, points = part + line, points + 1
        if len(part) + 300 > 256 * 1024:
            packed, part, points = packed + len(pack(part, points)), b"", 0
    packed += len(pack(part, points)) if part else 0
    per_day = 86400 / span_s / 1e6
    return {"outage_raw_mb_per_day": text * per_day, "outage_mb_per_day": packed * per_day}


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def _cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process, in nanosecond resolution where the kernel keeps it."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def _memory_mib(pid: int) -> tuple[float, float]:
    rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    values = {row[0]: int(row[1]) / 1024 for row in rows}
    return values["Pss:"], values["Rss:"]


def table(figures: dict[str, float | str]) -> str:
    """Render all figures, with the target where there is one and whether it is met."""
    width = max(map(len, figures))
    rows = [f"{'figure':{width}}  {'seen':>14}  target"]
    for key, value in figures.items():
        text = value if isinstance(value, str) else f"{value:14.3f}"
        rows.append(f"{key:{width}}  {text:>14}  {_verdict(key, value)}".rstrip())
    return "\n".join(rows)


def _verdict(key: str, value: float | str) -> str:
    if key not in TARGETS or isinstance(value, str):
        return ""
    sign, target = TARGETS[key]
    met = value <= target if sign == "<=" else value >= target
    return f"{sign} {target:g}  {'met' if met else 'MISSED'}"


if __name__ == "__main__":
    raise SystemExit(main())
