"""Command line of `powerhall-optimizer`."""

import argparse
from collections.abc import Sequence

from powerhall.runtime.command_line import Program, program_parser, run_program

__all__ = ["PROGRAM", "main", "parser"]

_EXAMPLES = """\
examples:
  powerhall-optimizer round --site site.toml --jobs jobs.csv --out plan.json --report report.html
  powerhall-optimizer round --site site.toml --store sqlite:///powerhall.db --seconds 30
  powerhall-optimizer round --site site.toml --jobs jobs.csv --what-if "hall3.power=12MW,grid=-20%" --dry-run
  powerhall-optimizer verify plan.json
  powerhall-optimizer explain job42 --plan plan.json

exit codes: 0 done, 1 refused input or failed check, 2 usage, 3 internal error
"""
PROGRAM = Program(
    "powerhall-optimizer",
    "Plans which job runs where, when and at which power level, within every power and cooling budget.",
    _EXAMPLES,
    {
        "round": "powerhall_optimizer.commands.round",
        "verify": "powerhall_optimizer.commands.verify",
        "explain": "powerhall_optimizer.commands.explain",
        "report": "powerhall_optimizer.commands.report",
        "rcpsp": "powerhall_optimizer.commands.rcpsp",
        "rollup": "powerhall_optimizer.commands.rollup",
        "lease": "powerhall_optimizer.commands.lease",
        "node-key": "powerhall_optimizer.commands.lease",
        "schedule": "powerhall_optimizer.commands.schedule",
        "queue": "powerhall_optimizer.commands.schedule",
        "shed": "powerhall_optimizer.commands.shed",
    },
)


def parser() -> argparse.ArgumentParser:
    """Return the parser with every sub-command."""
    return program_parser(PROGRAM)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code."""
    return run_program(PROGRAM, argv)
