"""A worker of the agent pool: the node agent's sampler, spool and shipper for many nodes in one process.

Each node has its own sampler, which reads its GPUs through pynvml from the simulated library, by the simulation's
clock. The nodes of a worker share one spool and one shipper. Steps arrive on stdin, reports leave on stdout; the end of
stdin ends the worker.
"""

import signal
import sys
import time
from pathlib import Path
from typing import TextIO

import msgspec

from powerhall.runtime.log import Log
from powerhall.runtime.signals import end_with_parent
from powerhall.store.line_protocol import Point, encode
from powerhall_agent.delivery.pipeline import OutputPipeline
from powerhall_agent.sampling.sampler import Sampler
from powerhall_agent.settings.agent_settings import AgentSettings, OutputSettings, ShipSettings, SpoolSettings
from powerhall_agent.settings.sampler_settings import SamplerSettings
from powerhall_agent.simulate.install import install
from powerhall_agent.simulate.state import StateFile
from powerhall_twin.demo.agent_pool import NodeSpec, PoolStep, WorkerReport, WorkerSpec
from powerhall_twin.site.simulated_nodes import advance_nodes

__all__ = ["main"]

TICK_SLACK_S = 10.0
"""A full set of readings is due this long before its tick, so that a tick one second early still takes it."""


class _SimulatedClock:
    """The simulation's time as monotonic clock and wall clock."""

    def __init__(self, start_s: float) -> None:
        self.now_ns = int(start_s * 1e9)

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time_ns(self) -> int:
        return self.now_ns


class _LineCollector:
    """A sink that collects the lines of all nodes of one tick."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, lines: bytes) -> None:
        self.parts.append(lines)

    def take(self) -> bytes:
        lines, self.parts = b"".join(self.parts), []
        return lines


def _sampler(spec: WorkerSpec, node: NodeSpec, first_gpu: int, sink: _LineCollector, clock: _SimulatedClock) -> Sampler:
    settings = SamplerSettings(
        node=node.node,
        site=spec.site,
        hall=node.hall,
        rack=node.rack,
        fast_interval_s=10.0,
        interval_s=max(1.0, spec.sample_s - TICK_SLACK_S),
        slow_interval_s=min(3600.0, 15 * spec.sample_s),
        identity_interval_s=3600.0,
        slow_call_s=10.0,
        hung_call_s=60.0,
        flight_recorder=False,
        rapl=False,
        attribution=False,
        first_gpu=first_gpu,
        gpu_count=node.gpus,
    )
    sampler = Sampler(settings, sink, clock)
    sampler.open()
    return sampler


def _pipeline(spec: WorkerSpec, log: Log) -> OutputPipeline:
    settings = AgentSettings(
        sampler=SamplerSettings(node="many"),
        output=(OutputSettings(spec.store),),
        spool=SpoolSettings(path=spec.spool, segment_bytes=4 * 1024 * 1024),
        ship=ShipSettings(interval_s=0.2, batch_bytes=4 * 1024 * 1024, backlog_factor=100.0),
    )
    return OutputPipeline(settings, settings.output[0], log)


def _report(pipeline: OutputPipeline) -> bytes:
    stats = pipeline.spool.stats()
    report = WorkerReport(
        pipeline.shipper.stats.sent_points, stats.points_waiting, stats.dropped_points, pipeline.dead_letters.points
    )
    return msgspec.json.encode(report) + b"\n"


def _self_report(spec: WorkerSpec, pipeline: OutputPipeline, time_ms: int, delivered_ms: int) -> bytes:
    """Return the self-monitoring points of every node's agent; the nodes share spool and shipper.

    The lag is measured against the sample before the last one: a second of the site lasts milliseconds here, so later
    samples are still being delivered.
    """
    waiting, sent = pipeline.spool.stats(), pipeline.shipper.stats
    fields: dict[str, float | str] = {
        "lag_s": max(0, delivered_ms - sent.newest_ms) / 1000 if sent.newest_ms else 0.0,
        "spool_bytes": float(waiting.bytes_waiting),
        "spool_points": float(waiting.points_waiting),
        "dropped_points": float(waiting.dropped_points),
        "rejected_points": float(pipeline.dead_letters.points),
        "sent_points": float(sent.sent_points),
        "retries": float(sent.retries),
    }
    tags = [{"site": spec.site, "hall": n.hall, "rack": n.rack, "node": n.node} for n in spec.nodes]
    return b"".join(encode(Point("agent", entry, fields, time_ms)) for entry in tags)


def _serve(spec: WorkerSpec, pipeline: OutputPipeline, out: TextIO) -> None:
    states = [StateFile.open(Path(node.state)) for node in spec.nodes]
    install(states)
    clock, sink = _SimulatedClock(spec.start_s), _LineCollector()
    samplers = []
    first_gpu = 0
    for node in spec.nodes:
        samplers.append(_sampler(spec, node, first_gpu, sink, clock))
        first_gpu += node.gpus
    _answer(pipeline, out)
    sampled_ms = delivered_ms = 0
    for line in sys.stdin.buffer:
        step = msgspec.json.decode(line, type=PoolStep)
        if step.dt_s > 0:
            advance_nodes(states, step.dt_s)
        clock.now_ns = int(step.time_s * 1e9)
        if step.sample:
            for sampler in samplers:
                sampler.tick()
            time_ms = clock.now_ns // 1_000_000
            pipeline.append(sink.take() + _self_report(spec, pipeline, time_ms, delivered_ms))
            sampled_ms, delivered_ms = time_ms, sampled_ms
        _answer(pipeline, out)


def _answer(pipeline: OutputPipeline, out: TextIO) -> None:
    out.buffer.write(_report(pipeline))
    out.buffer.flush()


def main() -> int:
    """Serve until stdin ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    end_with_parent(signal.SIGTERM)
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerSpec)
    pipeline = _pipeline(spec, Log())
    pipeline.start()
    _serve(spec, pipeline, sys.stdout)
    deadline_s = time.monotonic() + 10.0
    while pipeline.spool.stats().points_waiting and time.monotonic() < deadline_s:
        time.sleep(0.05)
    pipeline.stop(deadline_s)
    pipeline.join(10.0)
    _answer(pipeline, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
