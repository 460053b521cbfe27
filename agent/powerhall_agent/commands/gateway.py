"""`powerhall-agent gateway`: facility meters into the same spool and stores as the GPUs."""

import argparse
import contextlib
import dataclasses
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import ConfigError
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.runtime.log import Log
from powerhall.runtime.signals import ServiceSignals
from powerhall.units import parse_span
from powerhall_agent.base.systemd import Notifier
from powerhall_agent.settings.agent_settings import AgentSettings, OutputSettings
from powerhall_agent.settings.sampler_settings import SamplerSettings

if TYPE_CHECKING:
    from powerhall_agent.delivery.pipeline import OutputPipeline
    from powerhall_agent.facility.counter_state import CounterStateFile
    from powerhall_agent.facility.gateway import DeviceStatus, Gateway

__all__ = ["SpoolSink", "add_parser"]

_TEXT = """\
Reads power meters, PDUs, CDUs, chillers and weather stations by Modbus TCP, Redfish, SNMP, BACnet/IP, OPC UA and MQTT,
and ships their readings through the same spool and to the same stores as the GPUs. A meter without a plausible reading
gets quality 0 and no value, never a zero. Needs pip install 'powerhall[facility]', for OPC UA 'powerhall[opcua]'.

examples:
  powerhall-agent gateway --config facility.toml --once        read every device once and report problems
  powerhall-agent gateway --config facility.toml --store sqlite:///telemetry.db --spool ./facility-spool
  powerhall-agent gateway --config /etc/powerhall/facility.toml

facility.toml (docs/guide/facility.md has one section per protocol):
  site = "north"
  [[device]]
  name = "feed-a"
  protocol = "modbus"
  address = "10.0.8.20:502"
  map = "schneider_pm5000"
"""
_TICK_S = 0.25
_APPEND_EVERY_S = 0.5
_KEEP_EVERY_S = 30.0
_STOP_WITHIN_S = 8.0


class SpoolSink:
    """Gathers lines from all devices' threads; `flush` spools them."""

    def __init__(self, pipelines: "Sequence[OutputPipeline]") -> None:
        self._pipelines, self._lock = pipelines, threading.Lock()
        self._waiting: list[bytes] = []

    def write(self, lines: bytes) -> None:
        """Take lines; never waits for a disk."""
        with self._lock:
            self._waiting.append(lines)

    def flush(self) -> None:
        """Spool the received lines."""
        with self._lock:
            lines, self._waiting = b"".join(self._waiting), []
        if lines:
            for pipeline in self._pipelines:
                pipeline.append(lines)


def add_parser(commands: Commands) -> None:
    """Add the sub-command `gateway`."""
    parser = add_command(
        commands,
        "gateway",
        _gateway,
        help="read facility meters: Modbus, Redfish, SNMP, BACnet, OPC UA, MQTT",
        description=_TEXT,
    )
    parser.add_argument("--config", metavar="FILE", default="/etc/powerhall/facility.toml", help="default: %(default)s")
    parser.add_argument("--store", action="append", default=[], metavar="URL", help="as for run; replaces [[output]]")
    parser.add_argument("--spool", metavar="DIR", help="where undelivered points wait")
    parser.add_argument(
        "--once", action="store_true", help="read every device once and end; 1 when a point has no value"
    )
    parser.add_argument("--json", action="store_true", help="with --once: print the devices as JSON")
    parser.add_argument("--for", dest="for_s", type=parse_span, metavar="SPAN", help="end after this time, such as 60s")


def _gateway(args: argparse.Namespace) -> int:
    from powerhall_agent.delivery.pipeline import open_pipelines
    from powerhall_agent.facility.counter_state import CounterStateFile
    from powerhall_agent.facility.gateway import Gateway
    from powerhall_agent.facility.gateway_settings import load_facility
    from powerhall_agent.facility.registry import open_reader

    facility, maps = load_facility(args.config)
    shipping = AgentSettings(
        sampler=SamplerSettings(node="gateway"),
        spool=msgspec.structs.replace(facility.spool, path=args.spool) if args.spool else facility.spool,
        ship=facility.ship,
        output=_outputs(args.store) or facility.output,
    )
    if not shipping.output and not args.once:
        raise ConfigError("gateway: no store: give --store URL, or [[output]] with url in the settings file")
    log = Log()
    state = CounterStateFile(Path(shipping.spool.path) / ".state" / "facility.json" if shipping.output else None, log)
    pipelines = open_pipelines(shipping, log)
    sink = SpoolSink(pipelines)
    gateway = Gateway(facility.site, facility.device, maps, open_reader, sink=sink, log=log, counters=state.load())
    for pipeline in pipelines:
        pipeline.start()
    with contextlib.ExitStack() as handlers:
        try:
            if args.once:
                gateway.once()
            else:
                signals = handlers.enter_context(ServiceSignals())
                _serve(gateway, sink, pipelines, state, signals=signals, for_s=args.for_s)
        finally:
            gateway.stop(0.0 if args.once else _STOP_WITHIN_S / 2)
            sink.flush()
            state.save(gateway.counters())
            _deliver(pipelines)
    return _report(gateway.states(), pipelines, as_json=args.json) if args.once else EXIT_OK


def _outputs(stores: Sequence[str]) -> tuple[OutputSettings, ...]:
    return tuple(
        OutputSettings(url, "store" if index == 0 else f"store{index + 1}") for index, url in enumerate(stores)
    )


def _serve(
    gateway: "Gateway",
    sink: SpoolSink,
    pipelines: "Sequence[OutputPipeline]",
    state: "CounterStateFile",
    *,
    signals: ServiceSignals,
    for_s: float | None,
) -> None:
    """Run until SIGTERM or SIGINT, or for this long."""
    notifier, begin_s = Notifier(), time.monotonic()
    appended_s = kept_s = alive_s = begin_s
    gateway.start()
    notifier.ready(f"{len(gateway.pollers)} devices, {len(pipelines)} outputs")
    while not signals.stopped and (for_s is None or time.monotonic() - begin_s < for_s):
        signals.wait(_TICK_S)
        gateway.watch()
        now_s = time.monotonic()
        if now_s - appended_s >= _APPEND_EVERY_S:
            appended_s = now_s
            sink.flush()
        if now_s - kept_s >= _KEEP_EVERY_S:
            kept_s = now_s
            state.save(gateway.counters())
        for pipeline in pipelines:
            pipeline.shipper.enforce_deadline()
        if notifier.watchdog_s is not None and now_s - alive_s >= notifier.watchdog_s:
            alive_s = now_s
            notifier.alive()
    notifier.stopping()


def _deliver(pipelines: "Sequence[OutputPipeline]") -> None:
    deadline_s = time.monotonic() + _STOP_WITHIN_S
    for pipeline in pipelines:
        pipeline.stop(deadline_s)
    for pipeline in pipelines:
        pipeline.join(deadline_s - time.monotonic())


def _report(states: "Sequence[DeviceStatus]", pipelines: "Sequence[OutputPipeline]", *, as_json: bool) -> int:
    """Print the outcome of every device; 1 when a point has no value or a store did not take the points."""
    if as_json:
        sys.stdout.write(json.dumps([dataclasses.asdict(state) for state in states], indent=1) + "\n")
    else:
        for state in states:
            outcome = state.problem or ("no value of the points below" if state.bad else "ok")
            sys.stdout.write(f"{state.name:20} {state.good} good, {state.bad} not; {outcome}\n")
            if not state.problem:
                sys.stdout.writelines(f"  {point}: {why}\n" for point, why in state.points.items())
    waiting = [pipeline for pipeline in pipelines if pipeline.spool.stats().points_waiting]
    for pipeline in waiting:
        sys.stderr.write(
            f"powerhall-agent: {pipeline.name}: points wait in the spool: {pipeline.shipper.stats.problem}\n"
        )
    return EXIT_REFUSED if waiting or any(state.problem or state.bad for state in states) else EXIT_OK
