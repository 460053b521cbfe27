"""`powerhall-agent doctor`: checks this node and reports a remedy for every problem."""

import argparse
import contextlib
import ctypes
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.store import Query, Select, open_store
from powerhall.store.line_protocol import parse_lines
from powerhall_agent.commands.doctor_bmc import bmc_findings
from powerhall_agent.commands.doctor_rights import ROLES, role_findings
from powerhall_agent.commands.once import HANGS, gpus_of, why_no_gpus
from powerhall_agent.commands.options import (
    add_config_option,
    add_delivery_options,
    add_sampling_options,
    agent_settings,
)
from powerhall_agent.delivery.errors import SetupError
from powerhall_agent.delivery.outputs.open import open_output
from powerhall_agent.delivery.spool import segments_of
from powerhall_agent.sampling.sensor_file import read_sensors
from powerhall_agent.settings.agent_settings import AgentSettings, OutputSettings

__all__ = ["Finding", "add_parser", "examine", "examine_role", "report"]

_TEXT = """\
Reports what works, what is missing and what to do: driver, permissions, BMC, clock, spool, store, token.
Exit code 1 when something needs a person.

examples:
  powerhall-agent doctor
  powerhall-agent doctor --config /etc/powerhall/agent.toml --json
  powerhall-agent doctor --role grafana --store 'influxdb://tsdb:8086/power?org=ops&token_file=./grafana-token'
"""
_PROBE_S = 20.0
_FREE_BYTES = 1 << 30
_TIME_ERROR = 5
_LOAD_DRIVER = "load the driver: modprobe nvidia; systemctl start nvidia-persistenced"
_INSTALL = "install the NVIDIA driver (libnvidia-ml.so.1 is not there); without GPUs try --simulate"
_HUNG = "see dmesg for XID; reset or reboot"
_DRIVER_TODOS: dict[int | None, str] = {
    HANGS: _HUNG,
    4: "let the agent's user open /dev/nvidia* (group video, or the unit's DeviceAllow=)",
    6: _INSTALL,
    12: _INSTALL,
    13: _INSTALL,
    18: "the driver was updated while in use: reload the kernel module or reboot",
}
"""Remedies by NVML return code (no permission; not found; versions of library and driver differ)."""
_PROBE = "import sys; from powerhall_agent.commands.doctor import probe_driver; probe_driver(sys.stdin.buffer.read())"


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "doctor", _doctor, help="check this node and report remedies", description=_TEXT)
    add_config_option(parser)
    add_sampling_options(parser)
    add_delivery_options(parser)
    parser.add_argument(
        "--role",
        choices=sorted(ROLES),
        help="check only what the login in the store's URL may do, against what this part of Powerhall needs",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _doctor(arguments: argparse.Namespace) -> int:
    settings = agent_settings(arguments)
    findings = examine(settings) if arguments.role is None else examine_role(settings, arguments.role)
    sys.stdout.write(report(findings, as_json=arguments.json))
    return EXIT_REFUSED if any(finding.level == "bad" for finding in findings) else EXIT_OK


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check: level is ok, note (works with a restriction) or bad (needs a person)."""

    subject: str
    level: str
    text: str
    todo: str = ""


def examine(settings: AgentSettings) -> list[Finding]:
    """Run all checks; no check stops another, and a hung driver delays the report by at most twenty seconds."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        lambda: _driver(settings),
        lambda: _devices(settings),
        lambda: (Finding("bmc", *found) for found in bmc_findings(settings.sampler.redfish)),
        _clock,
        lambda: _spool(settings),
        *(_store_check(settings, output) for output in settings.output),
    ]
    found = [finding for check in checks for finding in check()]
    if not settings.output:
        found.append(
            Finding("store", "note", "no store is configured", "give --store URL or [[output]] in the settings")
        )
    return found


def examine_role(settings: AgentSettings, role: str) -> list[Finding]:
    """Check the logins of the stores for a role alone."""
    if not settings.output:
        raise Rejected("doctor: --role: needs a store: give --store URL, or --config with [[output]]")
    return [Finding("rights", *found) for output in settings.output for found in role_findings(role, output.url)]


def report(findings: list[Finding], *, as_json: bool) -> str:
    """Render the findings, one line each with its remedy below."""
    if as_json:
        return json.dumps([asdict(finding) for finding in findings], indent=1) + "\n"
    text = ""
    for finding in findings:
        text += f"{finding.level:4}  {finding.subject:9} {finding.text}\n"
        text += f"      {'':9} -> {finding.todo}\n" if finding.todo else ""
    bad = sum(finding.level == "bad" for finding in findings)
    return text + ("all well\n" if not bad else f"{bad} of {len(findings)} checks need a person\n")


def probe_driver(settings: bytes) -> None:
    """Take one sample and print it (runs in a process of its own, because a sick driver may never return)."""
    from powerhall_agent.commands.once import sample
    from powerhall_agent.settings.sampler_settings import SamplerSettings

    sys.stdout.buffer.write(sample(msgspec.json.decode(settings, type=SamplerSettings)))


def _python() -> Iterator[Finding]:
    names = ("nvidia-ml-py", "influxdb-client", "msgspec")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    yield Finding("software", "ok", f"Python {sys.version.split()[0]}, {versions}, user {os.geteuid()}")
    if os.geteuid() == 0:
        yield Finding("software", "note", "runs as root, which it does not need", "run it as a user of its own")


def _driver(settings: AgentSettings) -> Iterator[Finding]:
    command = [sys.executable, "-c", _PROBE]
    probe = msgspec.structs.replace(settings.sampler, state_dir="")  # only the daemon keeps state
    try:
        answer = subprocess.run(
            command, input=msgspec.json.encode(probe), capture_output=True, timeout=_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        yield Finding("driver", "bad", f"did not answer within {_PROBE_S:.0f} s", _HUNG)
        return
    gpus = gpus_of(answer.stdout)
    if answer.returncode or not gpus:
        yield _no_gpus(answer)
        return
    well = [values for _, values in gpus if values.get("state", "ok") == "ok"]
    if well:
        names = sorted({str(values.get("name", "unnamed GPU")) for values in well})
        kind = "simulated " if settings.sampler.simulate is not None else ""
        count = f"{len(well)}" if len(well) == len(gpus) else f"{len(well)} of {len(gpus)}"
        yield Finding("driver", "ok", f"{count} {kind}GPUs answer: {', '.join(names)}")
    yield from _sensors(answer.stdout, Path(settings.sampler.state_dir), settings.sampler.node)
    for gpu, values in gpus:
        if values.get("state", "ok") != "ok":
            todo = f"nvidia-smi -q -i {gpu}; see dmesg for XID; drain the node and reset the GPU"
            yield Finding("driver", "bad", f"GPU {gpu} is quarantined: {values['state']}", todo)


def _sensors(lines: bytes, state_dir: Path, node: str) -> Iterator[Finding]:
    """Report sensors with implausible readings: in this sample, and as the running agent counts them."""
    found = {
        (p.tags.get("gpu", ""), p.tags["sensor"]): p.fields for p in parse_lines(lines) if p.measurement == "sensor"
    }
    for state in read_sensors(state_dir, node):
        found[state.gpu, state.sensor] = {
            "suspect": 1.0 if state.suspect else 0.0, "reason": state.reason, "dropped_readings": state.dropped_readings
        }  # fmt: skip
    for (gpu, sensor), fields in sorted(found.items()):
        where = f"GPU {gpu} {sensor}" if gpu else sensor
        if fields.get("suspect"):
            todo = "its readings are not stored; compare with nvidia-smi or the BMC, then reset or replace the device"
            yield Finding("sensor", "bad", f"{where} is suspect: {fields['reason']}", todo)
        else:
            text = f"{where}: {fields['dropped_readings']:.0f} implausible readings, none stored: {fields['reason']}"
            yield Finding("sensor", "note", text)


def _no_gpus(answer: "subprocess.CompletedProcess[bytes]") -> Finding:
    """Return why the probe found no GPU: the last line of its log where it failed, else the driver's answer."""
    found = None if answer.returncode else why_no_gpus(answer.stdout)
    if found is None:
        last_line = answer.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return Finding("driver", "bad", last_line, _LOAD_DRIVER)
    return Finding("driver", "bad", found.detail, _DRIVER_TODOS.get(found.nvml_code, _LOAD_DRIVER))


def _devices(settings: AgentSettings) -> Iterator[Finding]:
    if settings.sampler.simulate is not None:
        return
    nodes = [*sorted(Path("/dev").glob("nvidia[0-9]*")), Path("/dev/nvidiactl")]
    closed = [str(path) for path in nodes if path.exists() and not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        yield Finding("rights", "bad", f"cannot open {', '.join(closed)}", "add the agent's user to their group")
    rapl = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
    if settings.sampler.rapl and rapl.exists() and not os.access(rapl, os.R_OK):
        todo = f"chmod o+r {rapl} by a udev rule, or set sampler.rapl = false"
        yield Finding("rights", "note", "CPU energy (RAPL) is readable by root alone", todo)


def _clock() -> Iterator[Finding]:
    """Ask the kernel whether its clock is disciplined (adjtimex(2): state 5 is TIME_ERROR)."""
    buffer = ctypes.create_string_buffer(256)
    state = ctypes.CDLL(None).adjtimex(buffer)
    if time.time() < 1.6e9:
        yield Finding("clock", "bad", f"says {time.strftime('%Y-%m-%d', time.gmtime())}", "set the clock; run chrony")
    elif state < 0:
        yield Finding("clock", "note", "the kernel does not report whether it is synchronised (sandboxed)")
    elif state == _TIME_ERROR:
        yield Finding("clock", "note", "is not synchronised (adjtimex)", "run chrony or systemd-timesyncd")
    else:
        yield Finding("clock", "ok", "synchronised")


def _spool(settings: AgentSettings) -> Iterator[Finding]:
    folder = Path(settings.spool.path)
    near = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(near, os.W_OK | os.X_OK):
        yield Finding("spool", "bad", f"{near} is not writable", f"chown it to the agent's user (now {os.geteuid()})")
        return
    free = shutil.disk_usage(near).free
    level = "ok" if free > _FREE_BYTES else "note"
    todo = "" if level == "ok" else "the spool drops its oldest points when the disk is full; make room"
    yield Finding("spool", level, f"{folder} is writable, {free / 2**30:.1f} GiB free", todo)
    for lock in sorted(folder.glob("*/lock")):
        waiting = segments_of(lock.parent)
        if waiting:
            size = sum(path.stat().st_size for path in waiting)
            age_s = time.time() - min(path.stat().st_mtime for path in waiting)
            yield Finding("spool", "note", f"{lock.parent.name}: {size} bytes wait, the oldest for {age_s:.0f} s")
        rejected = lock.parent / "rejected.lines"
        if rejected.exists():
            yield Finding(
                "spool", "note", f"the store has refused points: see {rejected}", "reasons stand above the lines"
            )


def _store_check(settings: AgentSettings, output: OutputSettings) -> Callable[[], Iterator[Finding]]:
    return lambda: _store(settings, output)


def _store(settings: AgentSettings, output: OutputSettings) -> Iterator[Finding]:
    """Send an empty line: a server that accepts the login takes it, or refuses it because it holds no points."""
    where = output.url.partition("?")[0]
    started_s = time.monotonic()
    try:
        opened = open_output(output.url, settings.ship.timeout_s)
    except Rejected as error:
        yield Finding("store", "bad", str(error), "correct the store URL")
        return
    try:
        with contextlib.suppress(Rejected):  # the login is accepted; the server refuses a write without points
            opened.send(b"\n")
    except SetupError as error:
        yield Finding("store", "bad", str(error), "correct the URL, the bucket or the token file; no restart is needed")
        return
    except PowerhallError as error:
        yield Finding("store", "bad", str(error), "points are spooled meanwhile; start the store or open the firewall")
        return
    yield Finding("store", "ok", f"{where} accepts writes ({1000 * (time.monotonic() - started_s):.0f} ms)")
    if "token_file=" in output.url or "password_file=" in output.url:
        yield from _more_rights(output.url, where)


def _more_rights(url: str, where: str) -> Iterator[Finding]:
    """Ask for a reading: the agent's login needs the right to write alone."""
    query = Query("agent", (Select("lag_s", "last"),))
    try:
        store = open_store(url)
        with contextlib.closing(store):
            store.query(query, time.time() - 60.0, time.time())
    except PowerhallError:
        return
    todo = "give the agent a token, or a user, that may write to this bucket and nothing else"
    yield Finding("store", "note", f"{where}: the agent's login may also read", todo)
