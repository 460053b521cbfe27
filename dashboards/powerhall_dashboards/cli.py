"""Command line of `powerhall-dashboards`."""

import argparse
from collections.abc import Sequence

from powerhall.runtime.command_line import Program, program_parser, run_program

__all__ = ["PROGRAM", "main", "parser"]

_EXAMPLES = """\
examples:
  powerhall-dashboards init-store --store 'influxdb://127.0.0.1:8086/power?version=1&retention=classes'
  powerhall-dashboards preview --store sqlite:///out/demo/store.db --out out/preview
  powerhall-dashboards serve --store sqlite:///powerhall.db
  powerhall-dashboards build --check
  powerhall-dashboards build --out /etc/powerhall/grafana --retention classes
  powerhall-dashboards publish --url https://grafana.example --token-file /run/secrets/grafana \\
      --store 'influxdb://tsdb.example:8086/power?token_file=/run/secrets/influx'
  powerhall-dashboards verify --url https://grafana.example --token-file /run/secrets/grafana

exit codes: 0 ok, 1 refused input or failed check, 2 usage, 3 internal error
"""
PROGRAM = Program(
    "powerhall-dashboards",
    "Eight Grafana dashboards and their alert rules as code: build, publish, verify, preview, serve.",
    _EXAMPLES,
    {
        "build": "powerhall_dashboards.commands.build",
        "publish": "powerhall_dashboards.commands.publish",
        "verify": "powerhall_dashboards.commands.verify",
        "diff": "powerhall_dashboards.commands.diff",
        "init-store": "powerhall_dashboards.commands.init_store",
        "install": "powerhall_dashboards.commands.install",
        "deploy-files": "powerhall_dashboards.commands.install",
        "preview": "powerhall_dashboards.commands.preview",
        "serve": "powerhall_dashboards.commands.serve",
    },
    needs_command=True,
)


def parser() -> argparse.ArgumentParser:
    """Return the parser with every sub-command."""
    return program_parser(PROGRAM)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code."""
    return run_program(PROGRAM, argv)
