"""`powerhall-agent run`: the daemon that samples, spools and ships."""

import argparse

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall.units import parse_span
from powerhall_agent.commands.options import (
    add_config_option,
    add_delivery_options,
    add_sampling_options,
    agent_settings,
)

__all__ = ["add_parser"]

_TEXT = """\
Runs in the foreground: samples every GPU, spools every record to disk and ships it to every store. All processes are
children of this one. SIGTERM or Ctrl-C delivers what is live and ends; SIGHUP reads the settings again.

examples:
  powerhall-agent run --simulate --store sqlite:///telemetry.db --spool ./spool
  powerhall-agent run --store 'influxdb://127.0.0.1:8086/powerhall?token_file=/etc/powerhall/token' --spool ./spool
  powerhall-agent run --store influxdb://a:8086/gpu --store influxdb://b:8086/gpu --spool ./spool   two stores at once
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "run", _run, help="sample, spool and ship until SIGTERM or Ctrl-C", description=_TEXT
    )
    add_config_option(parser)
    add_sampling_options(parser)
    add_delivery_options(parser)
    parser.add_argument("--for", dest="for_s", type=parse_span, metavar="SPAN", help="end after this time, such as 60s")
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve Prometheus' /metrics there")


def _run(arguments: argparse.Namespace) -> int:
    if not agent_settings(arguments).output:
        raise PowerhallError("run: no store: give --store URL, or [[output]] with url in the settings file")
    from powerhall_agent.daemon.daemon import run_daemon

    return run_daemon(lambda: agent_settings(arguments), Log(), arguments.for_s)
