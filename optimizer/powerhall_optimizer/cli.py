"""Command line of `powerhall-optimizer`."""

import argparse
from collections.abc import Sequence

from powerhall.runtime.command_line import Program, program_parser, run_program

__all__ = ["PROGRAM", "main", "parser"]

_EXAMPLES = """\
examples:
  powerhall-optimizer init --name phx --gpu H100 --hall hall1=16
  powerhall-optimizer check site.toml
  powerhall-optimizer round --site site.toml --jobs jobs.csv --out plan.json --report report.html
  powerhall-optimizer round --site site.toml --store sqlite:///powerhall.db --seconds 30
  powerhall-optimizer round --site site.toml --jobs jobs.csv --what-if "hall3.power=12MW,grid=-20%" --dry-run
  powerhall-optimizer verify plan.json
  powerhall-optimizer audit rounds --site-key site.key
  powerhall-optimizer explain job42 --plan plan.json
  powerhall-optimizer bill --site site.toml --store sqlite:///powerhall.db --month 2026-11 --by tenant

exit codes: 0 done, 1 refused input or failed check, 2 usage, 3 internal error
"""
PROGRAM = Program(
    "powerhall-optimizer",
    "Plans which job runs where, when and at which power level, within every power and cooling budget.",
    _EXAMPLES,
    {
        "init": "powerhall_optimizer.commands.check",
        "check": "powerhall_optimizer.commands.check",
        "round": "powerhall_optimizer.commands.round",
        "verify": "powerhall_optimizer.commands.verify",
        "audit": "powerhall_optimizer.commands.audit",
        "explain": "powerhall_optimizer.commands.explain",
        "report": "powerhall_optimizer.commands.report",
        "rcpsp": "powerhall_optimizer.commands.rcpsp",
        "warm-up": "powerhall_optimizer.commands.warm_up",
        "rollup": "powerhall_optimizer.commands.rollup",
        "bill": "powerhall_optimizer.commands.bill",
        "yearly": "powerhall_optimizer.commands.yearly",
        "lease": "powerhall_optimizer.commands.lease",
        "node-key": "powerhall_optimizer.commands.lease",
        "schedule": "powerhall_optimizer.commands.schedule",
        "queue": "powerhall_optimizer.commands.schedule",
        "shed": "powerhall_optimizer.commands.shed",
        "schema": "powerhall_optimizer.commands.schema",
        "install": "powerhall_optimizer.commands.install",
        "install-units": "powerhall_optimizer.commands.install",
        "deploy-files": "powerhall_optimizer.commands.install",
    },
    older=frozenset({"install-units"}),
)


def parser() -> argparse.ArgumentParser:
    """Return the parser with every sub-command."""
    return program_parser(PROGRAM)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code."""
    return run_program(PROGRAM, argv)
