"""The worker processes in which the agents of many simulated nodes run, in step with the simulation's clock."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from powerhall.runtime.errors import PowerhallError
from powerhall.site.topology import Site
from powerhall_twin.site.simulated_nodes import state_path

__all__ = ["Fleet", "NodeSpec", "Step", "WorkerSpec", "WriteReport", "fleet"]


class NodeSpec(msgspec.Struct, frozen=True):
    """One node of a worker."""

    hall: str
    rack: str
    node: str
    gpus: int
    state: str


class WorkerSpec(msgspec.Struct, frozen=True):
    """What a worker gets on its first line: its nodes, where their agents write, and where undelivered points wait."""

    site: str
    store: str
    spool: str
    sample_s: float
    start_s: float
    nodes: tuple[NodeSpec, ...]


class Step(msgspec.Struct, frozen=True):
    """One order: move the physics on by `dt_s` to `time_s`, then let the agents sample."""

    time_s: float
    dt_s: float
    sample: bool


class WriteReport(msgspec.Struct, frozen=True):
    """A worker's answer to a step: points delivered, waiting and dropped since the start."""

    sent: int = 0
    waiting: int = 0
    dropped: int = 0
    rejected: int = 0


@dataclass(slots=True)
class Fleet:
    """Running workers; `step` moves all of them and returns when all have answered."""

    workers: list[subprocess.Popen[bytes]]

    def step(self, step: Step) -> list[WriteReport]:
        """Send the order to all workers, then collect their answers; one that died raises PowerhallError."""
        line = msgspec.json.encode(step) + b"\n"
        for worker in self.workers:
            _send(worker, line)
        return [_answer(worker) for worker in self.workers]

    def close(self) -> list[WriteReport]:
        """Let the workers deliver what is spooled and end; returns their last reports."""
        reports = []
        for worker in self.workers:
            assert worker.stdin is not None
            worker.stdin.close()
        for worker in self.workers:
            reports.append(_answer(worker))
            worker.wait(timeout=20)
        return reports


def _send(worker: subprocess.Popen[bytes], line: bytes) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(line)
        worker.stdin.flush()
    except OSError:
        raise PowerhallError(f"agents: worker {worker.pid} has ended; its messages are in agents.log") from None


def _answer(worker: subprocess.Popen[bytes]) -> WriteReport:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise PowerhallError(f"agents: worker {worker.pid} has ended; its messages are in agents.log")
    return msgspec.json.decode(line, type=WriteReport)


@contextmanager
def fleet(site: Site, folder: Path, store: str, *, workers: int, sample_s: float, start_s: float) -> Iterator[Fleet]:
    """Start the agents of all nodes of a site; they end with the block, whatever happens in it."""
    nodes = list(_nodes(site, folder / "gpus"))
    specs = [
        WorkerSpec(site.name, store, str(folder / "spool" / f"worker{i}"), sample_s, start_s, tuple(nodes[i::workers]))
        for i in range(workers)
    ]
    running: list[subprocess.Popen[bytes]] = []
    with (folder / "agents.log").open("wb") as log:
        try:
            for spec in specs:
                running.append(_start(spec, log.fileno()))  # noqa: PERF401 - those already started must end
            for worker in running:
                _answer(worker)
            yield Fleet(running)
        finally:
            for worker in running:
                if worker.poll() is None:
                    worker.terminate()
            for worker in running:
                try:
                    worker.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    worker.kill()
                    worker.wait()


def _nodes(site: Site, states: Path) -> Iterator[NodeSpec]:
    for hall in site.halls:
        for rack in hall.racks():
            gpus = site.node_types[rack.node_type].gpus
            for node in rack.nodes:
                yield NodeSpec(hall.zone, rack.zone, node, gpus, str(state_path(states, node)))


def _start(spec: WorkerSpec, log: int) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen(
        (sys.executable, "-m", "powerhall_twin.demo.agent_worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,  # Ctrl-C reaches the demo, which ends the workers in order
    )
    _send(worker, msgspec.json.encode(spec) + b"\n")
    return worker
