"""The agent's sampler beside other GPU monitors on the simulated C library: CPU per sample, like for like.

A "sample" is one reading of all eight GPUs, twenty times a second, by a process that a clock wakes. Every process is
measured in the same way: the kernel's CPU time of its whole tree (all threads and children) over the samples of the
same period. For each peer our own sampler process runs with the values that the peer reads (`sampler.fields`), as far
as it has them, at the same rate, its other sets hardly ever. The library counts the calls and values of both, so that
the cost per value can be told, too.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from powerhall_agent.settings.sampler_settings import SamplerSettings
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.state import StateFile
from powerhall_agent.simulate.world import run_world
from rigs.nvml.headers import write_headers

GPUS = 8
PERIOD_S = 0.05
_WARM_S = 3.0
_STEADY_WITHIN_S = 60.0
_GRID = """
import time
pause = time.sleep
def main():
    due = time.monotonic()
    while True:
        read()
        due += PERIOD_S
        pause(max(0.0, due - time.monotonic()))
"""
_GUARD = """
if __name__ == "__main__":
    main()
"""


@dataclasses.dataclass(frozen=True)
class Peer:
    """A monitor from PyPI: how it takes samples, and the same values by the names of our `gpu` measurement."""

    package: str
    what: str
    code: str
    fields: tuple[str, ...]
    """Readings of the peer besides power that our full set has; empty: power alone, which our fast set reads."""

    @property
    def key(self) -> str:
        return self.package.replace("-", "_")


PEERS = (
    Peer(
        "nvitop",
        "its collector's device snapshot",
        """
from nvitop import Device, take_snapshots
devices = Device.all()
def read():
    take_snapshots(devices, gpu_processes=False)
"""
        + _GRID,
        ("mem_used_bytes", "mem_total_bytes", "util_percent", "mem_util_percent", "sm_clock_mhz", "mem_clock_mhz",
         "temp_c", "power_average_w", "power_limit_w", "pcie_tx_bytes", "pcie_rx_bytes", "pstate"),
    ),
    Peer(
        "gpustat",
        "new_query, without process lists and without its pause of 0.1 s per GPU, in its favour",
        """
import gpustat.core
import pynvml
read = gpustat.core.GPUStatCollection.new_query
pynvml.nvmlDeviceGetComputeRunningProcesses = pynvml.nvmlDeviceGetGraphicsRunningProcesses = lambda handle: []
"""
        + _GRID
        + """
class NoPause:
    def __getattr__(self, name):
        return (lambda seconds: None) if name == "sleep" else getattr(time, name)
gpustat.core.time = NoPause()
""",
        ("mem_used_bytes", "mem_total_bytes", "util_percent", "mem_util_percent", "temp_c", "power_limit_w"),
    ),
    Peer(
        "zeus-ml",
        "its power monitor, which polls in a process of its own and writes a CSV file",
        """
import time
def main():
    from zeus.monitor.power import PowerMonitor
    monitor = PowerMonitor(update_period=PERIOD_S)
    time.sleep(3600)
""",
        (),
    ),
)  # fmt: skip


@contextmanager
def simulated_node(folder: Path) -> Iterator[dict[str, str]]:
    """Build the C library, move its GPUs in a thread, and give the environment that loads it."""
    library, source = folder / "libnvidia-ml.so.1", Path(__file__).parent / "nvmlsim.c"
    write_headers(folder)
    flags = ["-O2", "-fvisibility=hidden", "-shared", "-fPIC", f"-I{folder}", "-Wl,-soname,libnvidia-ml.so.1"]
    compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
    subprocess.run([compiler, *flags, "-o", str(library), str(source), "-lpthread"], check=True)
    state = StateFile.create(folder / "node", gpus=GPUS, node="bench", seed=1)
    for gpu in range(GPUS):
        state.set_load(gpu, 0.9)
    stop = threading.Event()
    world = threading.Thread(target=run_world, args=([state], stop, 0.1))
    world.start()
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    try:
        yield {**env, "LD_LIBRARY_PATH": str(folder), "NVMLSIM_STATE": str(folder / "node")}
    finally:
        stop.set()
        world.join()


def cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process and of its children, in the kernel's nanoseconds."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0]) / 1e9
        total += sum(cpu_s(int(child)) for child in (task / "children").read_text().split())
    return total


def compare(folder: Path, env: dict[str, str], venv: Path, seconds: float) -> dict[str, float | str]:
    """Measure every peer and our sampler with the peer's values; ratios are the peer's cost over ours."""
    figures: dict[str, float | str] = {"sample_hz": 1 / PERIOD_S}
    figures |= _named("our_full_set", _ours(folder, env, (), seconds, full=True))
    python = peers_python(venv)
    ratios: list[float] = []
    for peer in PEERS:
        if python is None:
            figures[f"{peer.key}_note"] = "cannot be installed here"
            continue
        theirs = _theirs(folder, env, python, peer, seconds)
        if isinstance(theirs, str):
            figures[f"{peer.key}_note"] = theirs
            continue
        ours = _ours(folder, env, peer.fields, seconds, full=bool(peer.fields))
        figures |= _named(peer.key, theirs) | _named(f"our_{peer.key}_set", ours)
        ratios.append(theirs.ms / ours.ms)
        figures[f"cpu_per_sample_ratio_{peer.key}"] = ratios[-1]
        figures[f"cpu_per_value_ratio_{peer.key}"] = (theirs.ms / theirs.values) / (ours.ms / ours.values)
    if ratios:
        figures["cpu_per_sample_ratio"] = min(ratios)
    return figures


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one sample of all GPUs: CPU milliseconds, and the library's count of calls and values."""

    ms: float
    calls: float
    values: float


def _named(prefix: str, cost: Cost) -> dict[str, float]:
    return {f"{prefix}_sample_ms": cost.ms, f"{prefix}_calls": cost.calls, f"{prefix}_values": cost.values}


def _observe(folder: Path, pid: int, seconds: float) -> Cost:
    """Watch a process that takes a sample every period."""
    words = StateFile.open(folder / "node").ints
    before, calls, values, begun_s = cpu_s(pid), words[at.H_CALLS], words[at.H_VALUES], time.monotonic()
    time.sleep(seconds)
    spent, samples = cpu_s(pid) - before, (time.monotonic() - begun_s) / PERIOD_S
    return Cost(1e3 * spent / samples, (words[at.H_CALLS] - calls) / samples, (words[at.H_VALUES] - values) / samples)


def _steady(folder: Path, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a process makes as many calls in one second as in the second before; False where it never does."""
    words, before, last = StateFile.open(folder / "node").ints, 0, 0
    end_s = time.monotonic() + _STEADY_WITHIN_S
    while process.poll() is None and time.monotonic() < end_s:
        calls = words[at.H_CALLS]
        time.sleep(1.0)
        last, before = words[at.H_CALLS] - calls, last
        if before >= 1 / PERIOD_S and abs(last - before) <= 0.1 * before:
            return True
    return False


def _theirs(folder: Path, env: dict[str, str], python: str, peer: Peer, seconds: float) -> Cost | str:
    """Measure a peer; why not, where it does not run."""
    script = folder / f"peer_{peer.key}.py"
    script.write_text(peer.code.replace("PERIOD_S", str(PERIOD_S)) + _GUARD)
    process = subprocess.Popen(
        [python, "-u", str(script)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        if not _steady(folder, process):
            assert process.stderr is not None
            if process.poll() is None:
                os.killpg(process.pid, 9)
            return process.stderr.read().decode(errors="replace").strip().rpartition("\n")[2][:120] or "no samples"
        return _observe(folder, process.pid, seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()


def _ours(folder: Path, env: dict[str, str], fields: tuple[str, ...], seconds: float, *, full: bool) -> Cost:
    """Measure our sampler process: the fast set, and with `full` these fields of the full set, at every sample."""
    values: dict[str, Any] = {"fast_interval_s": PERIOD_S, "interval_s": PERIOD_S if full else 1.0, "fields": fields}
    if not full:
        values["fields"] = ("power_w",)
    settings = SamplerSettings(
        node="bench", slow_interval_s=3600.0, rapl=False, attribution=False, jitter=0.0, **values
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "powerhall_agent.sampling.process"],
        env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(settings))
    process.stdin.close()
    drain = threading.Thread(target=process.stdout.read)
    drain.start()
    try:
        time.sleep(_WARM_S)
        return _observe(folder, process.pid, seconds)
    finally:
        process.terminate()
        process.wait(10)
        drain.join(5)
        process.stdout.close()


def peers_python(venv: Path) -> str | None:
    """Return the interpreter of the peers' virtual environment, made at the first use; None where that fails."""
    python = venv / "bin" / "python"
    if not (venv / "complete").exists():
        packages = [peer.package for peer in PEERS]
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
            subprocess.run(
                [str(python), "-m", "pip", "install", "--quiet", *packages, "setuptools<81"], check=True, timeout=600
            )
        except (subprocess.SubprocessError, OSError) as error:
            print(f"peers are left out: {error}", file=sys.stderr)
            return None
        (venv / "complete").touch()
    return str(python)
