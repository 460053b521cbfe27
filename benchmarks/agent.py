"""The node agent beside its peers: CPU, memory, encoding, freshness, disk use of an outage.

All of them read the same simulated C library (tests/rigs/nvml, 8 GPUs) through unmodified pynvml. Peers (nvitop,
zeus-ml, gpustat) are installed from PyPI into a virtual environment outside the checkout, made at the first run.
A "sample" is one reading of all eight GPUs, twenty times a second, as a monitor takes it (woken by a clock, caches
cold): the full set for nvitop and gpustat, power alone for zeus.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from powerhall.line import parse_lines
from powerhall_agent.encode import Series
from powerhall_agent.sampler_settings import SamplerSettings
from powerhall_agent.segment import pack, scan, unpack
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import run_world
from powerhall_agent.spool import segments_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
GPUS = 8
ENTRY = "import sys; from powerhall_agent.entry import main; sys.exit(main())"
PEERS = ("nvitop", "zeus-ml", "gpustat")
TARGETS = {
    "cpu_percent": "<= 0.5",
    "pss_mib": "<= 48",
    "encode_ratio": ">= 10",
    "cpu_per_sample_ratio": ">= 10",
    "freshness_p99_s": "<= 3",
    "outage_mb_per_day": "<= 60",
}
PERIOD_S = 0.05
_LOOP = """
def main():
    for _ in range(3):
        read()
    begun = time.process_time()
    for _ in range(COUNT):
        read()
        pause(PERIOD_S)
    print((time.process_time() - begun) / COUNT * 1e3)
"""
PEER_CODE = {
    # nvitop's own collector of device metrics, as its exporter runs it.
    "nvitop": """
import time
pause = time.sleep
from nvitop import Device, take_snapshots
devices = Device.all()
def read():
    take_snapshots(devices, gpu_processes=False)
"""
    + _LOOP,
    # Its pause of 0.1 s per GPU and its process lists are taken out, in its favour.
    "gpustat": """
import time
import gpustat.core
import pynvml
pause = time.sleep
gpustat.core.time.sleep = lambda seconds: None
pynvml.nvmlDeviceGetComputeRunningProcesses = pynvml.nvmlDeviceGetGraphicsRunningProcesses = lambda handle: []
def read():
    gpustat.core.GPUStatCollection.new_query()
"""
    + _LOOP,
    # The monitor polls in processes of its own; their CPU over the samples that its period promises.
    "zeus-ml": """
import os, pathlib, time
def tree(pid):
    tasks = list(pathlib.Path(f"/proc/{pid}/task").iterdir())
    own = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    return own + sum(tree(child) for task in tasks for child in (task / "children").read_text().split())
def main():
    from zeus.monitor.power import PowerMonitor
    monitor = PowerMonitor(update_period=PERIOD_S)
    time.sleep(8)
    before = tree(os.getpid())
    time.sleep(COUNT * PERIOD_S)
    print((tree(os.getpid()) - before) / COUNT / 1e6)
    os.killpg(0, 9)
""",
}
_GUARD = """
if __name__ == "__main__":
    main()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="45 s of running instead of 5 min, fewer repeats")
    parser.add_argument("--no-peers", action="store_true", help="leave out the peers (no network)")
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "powerhall" / "agent-peers"
    parser.add_argument("--peers-venv", type=Path, default=default, help=f"where the peers live (default: {default})")
    arguments = parser.parse_args()
    figures: dict[str, float | str] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}",
        "python": platform.python_version(),
        "nvidia_ml_py": version("nvidia-ml-py"),
        "influxdb_client": version("influxdb-client"),
        "seed": 1,
        "load_average_at_start": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory(prefix="powerhall-bench-") as name, simulated_node(Path(name)) as env:
        folder = Path(name)
        figures |= encoding(env, repeats=3 if arguments.quick else 7)
        figures |= running(folder, env, 45.0 if arguments.quick else 300.0)
        if not arguments.no_peers:
            figures |= per_sample(folder, env, arguments.peers_venv, 60 if arguments.quick else 300)
    print(table(figures))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    return 0


@contextmanager
def simulated_node(folder: Path) -> Iterator[dict[str, str]]:
    """Build the C library, move its GPUs in a thread, and give the environment that loads it."""
    library = folder / "libnvidia-ml.so.1"
    source = ROOT / "tests" / "rigs" / "nvml" / "nvmlsim.c"
    flags = ["-O2", "-fvisibility=hidden", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
    subprocess.run([compiler, *flags, "-o", str(library), str(source), "-lpthread"], check=True)
    state = StateFile.create(folder / "node", gpus=GPUS, node="bench", seed=1)
    for gpu in range(GPUS):
        state.set_load(gpu, 90.0)
    stop = threading.Event()
    world = threading.Thread(target=run_world, args=([state], stop, 0.1))
    world.start()
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    try:
        yield {**env, "LD_LIBRARY_PATH": str(folder), "NVMLSIM_STATE": str(folder / "node")}
    finally:
        stop.set()
        world.join()


def encoding(env: dict[str, str], repeats: int) -> dict[str, float]:
    """Points per second of our encoder and of influxdb-client's Point, for points that the agent has just taken."""
    from influxdb_client import Point, WritePrecision

    command = [sys.executable, "-c", ENTRY, "once", "--node", "bench", "--format", "line"]
    lines = subprocess.run(command, env=env, capture_output=True, check=True).stdout
    points = [point for point in parse_lines(lines) if point.measurement == "gpu"]
    dice = random.Random(1)
    rows = []
    for number in range(4000):
        row = dict(points[number % len(points)].fields)
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
    sys.path.insert(0, str(ROOT / "tests"))
    from rigs import influxdb

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
    """Age of each GPU point at the moment a reader first sees it; the reader asks every 50 ms."""
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
    """Disk that a day without a store takes: lines of a minute of the agent, packed as the spool packs them."""
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


def per_sample(folder: Path, env: dict[str, str], venv: Path, count: int) -> dict[str, float | str]:
    """CPU milliseconds of one sample of eight GPUs: ours against each peer's."""
    full = _our_sample_ms(env, {"fast_interval_s": PERIOD_S, "interval_s": PERIOD_S}, b"gpu,", GPUS, count)
    fast = _our_tick_ms(env, count)
    figures: dict[str, float | str] = {"our_full_sample_ms": full, "our_power_sample_ms": fast}
    python = _peers_python(venv)
    ratios = []
    for peer in PEERS:
        key = peer.replace("-", "_")
        answer = "cannot be installed here" if python is None else _peer_ms(folder, env, python, peer, count)
        if isinstance(answer, str):
            figures[f"{key}_note"] = answer
            continue
        ratio = answer / (fast if peer == "zeus-ml" else full)
        figures |= {f"{key}_sample_ms": answer, f"cpu_per_sample_ratio_{key}": ratio}
        ratios.append(ratio)
    if ratios:
        figures["cpu_per_sample_ratio"] = min(ratios)
    return figures


def _peer_ms(folder: Path, env: dict[str, str], python: str, peer: str, count: int) -> float | str:
    """CPU milliseconds of one sample of a peer, or why there is none."""
    script = folder / f"peer_{peer.partition('-')[0]}.py"
    code = PEER_CODE[peer].replace("COUNT", str(count)).replace("PERIOD_S", str(PERIOD_S))
    script.write_text(code + _GUARD)
    done = subprocess.run(
        [python, "-u", str(script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        start_new_session=True,
    )
    words = done.stdout.split()
    return float(words[-1]) if words else done.stderr.strip().rpartition("\n")[2][:120]


def _sampler(env: dict[str, str], values: dict[str, float]) -> subprocess.Popen[bytes]:
    settings = SamplerSettings(
        node="bench", slow_interval_s=3600.0, rapl=False, attribution=False, jitter=0.0, **values
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "powerhall_agent.sampler_process"],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(settings))
    process.stdin.close()
    return process


def _our_sample_ms(env: dict[str, str], values: dict[str, float], head: bytes, per_sample: int, count: int) -> float:
    """Run our sampler process with a full set at every tick; CPU over the samples that came out of its pipe."""
    process = _sampler(env, values)
    assert process.stdout is not None
    seen, before = 0, 0.0
    for line in process.stdout:
        seen += line.startswith(head)
        if seen == 10 * per_sample and line.startswith(head):
            before = _cpu_s(process.pid)
        if seen >= (10 + count) * per_sample:
            break
    spent = _cpu_s(process.pid) - before
    process.terminate()
    process.stdout.close()
    process.wait(10)
    return 1e3 * spent / count


def _our_tick_ms(env: dict[str, str], count: int) -> float:
    """Run our sampler process with power and energy at 20 Hz and the full set hardly ever."""
    process = _sampler(env, {"fast_interval_s": PERIOD_S, "interval_s": 600.0})
    drain = threading.Thread(target=lambda: process.stdout and process.stdout.read())
    drain.start()
    time.sleep(2.0)
    before, begun_s = _cpu_s(process.pid), time.monotonic()
    time.sleep(PERIOD_S * count)
    spent, passed_s = _cpu_s(process.pid) - before, time.monotonic() - begun_s
    process.terminate()
    process.wait(10)
    drain.join(5)
    return 1e3 * spent / (passed_s / PERIOD_S)


def _peers_python(venv: Path) -> str | None:
    python = venv / "bin" / "python"
    if not (venv / "complete").exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
            subprocess.run(
                [str(python), "-m", "pip", "install", "--quiet", *PEERS, "setuptools<81"], check=True, timeout=600
            )
        except (subprocess.SubprocessError, OSError) as error:
            print(f"peers are left out: {error}", file=sys.stderr)
            return None
        (venv / "complete").touch()
    return str(python)


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
    """Render all figures, with the target where there is one."""
    width = max(map(len, figures))
    rows = [f"{'figure':{width}}  {'seen':>14}  target"]
    for key, value in figures.items():
        text = value if isinstance(value, str) else f"{value:14.3f}"
        rows.append(f"{key:{width}}  {text:>14}  {TARGETS.get(key, '')}".rstrip())
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
