"""`powerhall-agent spool`: list and show the waiting lines of a spool, or deliver them by hand."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import IO

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import ConfigError, PowerhallError, Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.log import Log
from powerhall_agent.commands.options import add_config_option, add_delivery_options, agent_settings
from powerhall_agent.delivery.bisection import Bisection
from powerhall_agent.delivery.dead_letter import DeadLetters
from powerhall_agent.delivery.outputs.open import open_output
from powerhall_agent.delivery.segment import scan, unpack
from powerhall_agent.delivery.spool import Spool, segments_of
from powerhall_agent.settings.agent_settings import AgentSettings

__all__ = ["add_parser", "drain", "listing", "show"]

_TEXT = """\
Looks into a spool, or delivers it by hand while the daemon is stopped (a decommissioned node, a copied disk).

examples:
  powerhall-agent spool list --spool /var/lib/powerhall-agent/spool
  powerhall-agent spool show --spool ./spool --output store | head
  powerhall-agent spool drain --spool ./spool --output store --store influxdb://127.0.0.1:8086/powerhall
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "spool", _spool, help="list, show or drain a spool", description=_TEXT)
    add_config_option(parser)
    parser.add_argument(
        "action", choices=("list", "show", "drain"), help="what waits, the waiting lines, or deliver them by hand"
    )
    add_delivery_options(parser)
    parser.add_argument("--output", metavar="NAME", default="store", help="folder in the spool (default: store)")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def _spool(arguments: argparse.Namespace) -> int:
    settings = agent_settings(arguments)
    folder = Path(settings.spool.path)
    if arguments.action == "list":
        sys.stdout.write(listing(folder, as_json=arguments.json))
    elif arguments.action == "show":
        show(folder / arguments.output, sys.stdout.buffer)
    else:
        sys.stdout.write(drain(folder, arguments.output, settings))
    return EXIT_OK


def listing(folder: Path, *, as_json: bool) -> str:
    """Sum up every output's folder; works while the daemon runs, and changes nothing."""
    rows = [_row(path.parent) for path in sorted(folder.glob("*/lock"))]
    if not rows:
        raise ConfigError(f"spool {folder}: holds no spool (no NAME/lock); is it the folder that the agent was given?")
    if as_json:
        return json.dumps(rows, indent=1) + "\n"
    text = f"{'output':12} {'segments':>8} {'bytes':>12} {'points':>10} {'oldest':>19} {'rejected':>9} {'damaged':>9}\n"
    for row in rows:
        oldest = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(row["oldest_s"]))) if row["segments"] else "-"
        text += f"{row['output']:12} {row['segments']:8} {row['bytes']:12} {row['points']:10} {oldest:>19} "
        text += f"{row['rejected_bytes']:9} {row['damaged_bytes']:9}\n"
    return text


def _row(folder: Path) -> dict[str, int | float | str]:
    segments = segments_of(folder)
    damaged = sum(path.stat().st_size for path in (folder / "damaged").glob("*"))
    return {
        "output": folder.name,
        "segments": len(segments),
        "bytes": sum(path.stat().st_size for path in segments),
        "points": sum(scan(path.read_bytes()).points for path in segments),
        "oldest_s": min((path.stat().st_mtime for path in segments), default=0.0),
        "rejected_bytes": sum(path.stat().st_size for path in folder.glob("rejected.lines*")),
        "damaged_bytes": damaged,
    }


def show(folder: Path, out: IO[bytes]) -> None:
    """Write the waiting lines of one output, oldest first."""
    if not folder.is_dir():
        raise ConfigError(f"spool {folder}: no such folder; `powerhall-agent spool list` shows the outputs")
    for path in segments_of(folder):
        data = path.read_bytes()
        out.write(unpack(data, scan(data).records))


def drain(folder: Path, name: str, settings: AgentSettings) -> str:
    """Deliver everything that waits, as fast as the store takes it; the daemon must be stopped."""
    urls = [entry.url for entry in settings.output if entry.name == name] or [entry.url for entry in settings.output]
    if not urls:
        raise ConfigError("spool drain: give --store URL, the store to deliver to")
    if not (folder / name).is_dir():
        raise ConfigError(f"spool {folder / name}: no such folder; `powerhall-agent spool list` shows the outputs")
    log = Log()
    output = open_output(urls[0], settings.ship.timeout_s)
    spool = Spool(folder / name, settings.spool.max_bytes, settings.spool.segment_bytes, log)
    dead_letters = DeadLetters(folder / name, log)
    sent = 0
    try:
        while (batch := spool.backlog(settings.ship.batch_bytes)) is not None:
            try:
                output.send(batch.lines)
            except Rejected as refusal:
                bisection = Bisection(batch, batch.lines, refusal, dead_letters.add)
                while not bisection.done:
                    bisection.step(output.send)
            spool.ack(batch)
            sent += batch.points
    except PowerhallError as error:
        raise PowerhallError(f"spool drain: {sent} points sent, then: {error}; the others stay spooled") from None
    finally:
        spool.close()
    return f"{sent - dead_letters.points} points sent, {dead_letters.points} refused by the store\n"
