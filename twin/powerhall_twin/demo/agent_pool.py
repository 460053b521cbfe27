"""Worker processes that run the agents of many simulated nodes, in step with the simulation's clock."""

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

__all__ = ["AgentPool", "NodeSpec", "PoolStep", "WorkerReport", "WorkerSpec", "agent_pool"]


class NodeSpec(msgspec.Struct, frozen=True):
    """One node of a worker."""

    hall: str
    rack: str
    node: str
    gpus: int
    state: str


class WorkerSpec(msgspec.Struct, frozen=True):
    """First line to a worker: its nodes, the store of their agents, and the folder of their spool."""

    site: str
    store: str
    spool: str
    sample_s: float
    start_s: float
    nodes: tuple[NodeSpec, ...]


class PoolStep(msgspec.Struct, frozen=True):
    """Line to a worker: advance the physics by `dt_s` to `time_s`, then sample where `sample` is set."""

    time_s: float
    dt_s: float
    sample: bool


class WorkerReport(msgspec.Struct, frozen=True):
    """A worker's answer to a step: points delivered, waiting, dropped and rejected since the start."""

    sent: int = 0
    waiting: int = 0
    dropped: int = 0
    rejected: int = 0


@dataclass(slots=True)
class AgentPool:
    """The running workers."""

    workers: list[subprocess.Popen[bytes]]

    def step(self, step: PoolStep) -> list[WorkerReport]:
        """Send the step to all workers, then collect their answers; a worker that has ended raises PowerhallError."""
        line = msgspec.json.encode(step) + b"\n"
        for worker in self.workers:
            _send(worker, line)
        return [_answer(worker) for worker in self.workers]

    def close(self) -> list[WorkerReport]:
        """End the workers once their spools are delivered; return their last reports."""
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


def _answer(worker: subprocess.Popen[bytes]) -> WorkerReport:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise PowerhallError(f"agents: worker {worker.pid} has ended; its messages are in agents.log")
    return msgspec.json.decode(line, type=WorkerReport)


@contextmanager
def agent_pool(
    site: Site, folder: Path, store: str, *, workers: int, sample_s: float, start_s: float
) -> Iterator[AgentPool]:
    """Start the agents of all nodes of a site; they end with the block."""
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
            yield AgentPool(running)
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
