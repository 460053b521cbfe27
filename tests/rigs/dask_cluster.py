"""A Dask cluster of processes on loopback: a scheduler and workers, each a program of its own that can be killed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def fails(_shared: None, item: int) -> int:
    raise ValueError(f"item {item}")


@dataclass
class DaskRig:
    """Address of the scheduler, and the processes."""

    folder: Path
    environment: Mapping[str, str]
    address: str = ""
    scheduler: subprocess.Popen | None = None
    workers: list[subprocess.Popen] = field(default_factory=list)

    def start(self, name: str, program: str, *arguments: str, **environment: str) -> subprocess.Popen:
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments, "--no-dashboard"]
            own = os.environ | {"PYTHONPATH": str(TESTS)} | self.environment | environment
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=own)

    def add_worker(self, **environment: str) -> subprocess.Popen:
        options = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--memory-limit", "0")
        name = f"worker{len(self.workers)}"
        self.workers.append(self.start(name, "dask_worker", self.address, *options, **environment))
        return self.workers[-1]

    def log(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))


@contextmanager
def dask_cluster(
    folder: Path, workers: int = 2, scheme: str = "tcp", environment: Mapping[str, str] | None = None
) -> Iterator[DaskRig]:
    """Start a scheduler and workers of one thread each, and end them."""
    rig = DaskRig(folder, environment or {})
    file = folder / "scheduler.json"
    where = ("--protocol", scheme, "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
    rig.scheduler = rig.start("scheduler", "dask_scheduler", *where)
    try:
        until = time.monotonic() + 60
        while not file.exists() and rig.scheduler.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert file.exists(), rig.log()
        rig.address = json.loads(file.read_text())["address"]
        for _ in range(workers):
            rig.add_worker()
        yield rig
    finally:
        for process in (*rig.workers, rig.scheduler):
            process.kill()
            process.wait()
