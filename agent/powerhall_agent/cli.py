"""Command line of `powerhall-agent`."""

import argparse
from collections.abc import Sequence

from powerhall.runtime.command_line import Program, program_parser, run_program

__all__ = ["PROGRAM", "main", "parser"]

_EXAMPLES = """\
examples:
  powerhall-agent once --simulate                     eight simulated H100s, as a table
  powerhall-agent once --format line                  this node's GPUs in InfluxDB line protocol
  powerhall-agent run --simulate --store sqlite:///telemetry.db --spool ./spool
  powerhall-agent run --config /etc/powerhall/agent.toml
  powerhall-agent doctor --config /etc/powerhall/agent.toml
  powerhall-agent top                                 live view
  powerhall-agent spool list --spool /var/lib/powerhall-agent/spool
  powerhall-agent cap --config /etc/powerhall/capper.toml

exit codes: 0 ok, 1 refused input or failed check, 2 usage, 3 internal error
"""
PROGRAM = Program(
    "powerhall-agent",
    "Node agent of Powerhall: measures GPUs through NVML, loses nothing, ships to InfluxDB.",
    _EXAMPLES,
    {
        "run": "powerhall_agent.commands.run",
        "once": "powerhall_agent.commands.once",
        "doctor": "powerhall_agent.commands.doctor",
        "top": "powerhall_agent.commands.top",
        "spool": "powerhall_agent.commands.spool",
        "cap": "powerhall_agent.commands.cap",
        "lease": "powerhall_agent.commands.lease",
        "gateway": "powerhall_agent.commands.gateway",
        "schema": "powerhall_agent.commands.schema",
        "install": "powerhall_agent.commands.install",
        "install-units": "powerhall_agent.commands.install",
        "deploy-files": "powerhall_agent.commands.install",
    },
    needs_command=True,
    older=frozenset({"install-units"}),
)


def parser() -> argparse.ArgumentParser:
    """Return the parser with every sub-command."""
    return program_parser(PROGRAM)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code."""
    return run_program(PROGRAM, argv)
