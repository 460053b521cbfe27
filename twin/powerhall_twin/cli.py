"""Command line of `powerhall-twin`."""

import argparse
from collections.abc import Sequence

from powerhall.runtime.command_line import Program, program_parser, run_program

__all__ = ["PROGRAM", "main", "parser"]

_EXAMPLES = """\
examples:
  powerhall-twin demo                                 a hot day with a grid curtailment; out/demo/report.html
  powerhall-twin demo --length 2h --seed 7            a shorter day with other jobs
  powerhall-twin replay --site site.toml --jobs philly_jobs.csv.gz --length 24h
  powerhall-twin size --site site.toml --jobs jobs.csv --policies tdp,easy --seeds 5
  powerhall-twin whatif --site site.toml --jobs jobs.csv --change grid=-20%
  powerhall-twin hindsight --site site.toml --sacct july.txt --meter meter.csv --out out/july
  powerhall-twin shed --by 30%                        an emergency shed, in steps of 0.25 s

exit codes: 0 ok, 1 refused input or a budget that did not hold, 2 usage, 3 internal error
"""
PROGRAM = Program(
    "powerhall-twin",
    "A simulated site: demo, replay of job traces, sizing, what-if runs, and hindsight.",
    _EXAMPLES,
    {
        "demo": "powerhall_twin.commands.demo",
        "replay": "powerhall_twin.commands.replay",
        "size": "powerhall_twin.commands.size",
        "sweep": "powerhall_twin.commands.sweep",
        "compare": "powerhall_twin.commands.compare",
        "whatif": "powerhall_twin.commands.whatif",
        "hindsight": "powerhall_twin.commands.hindsight",
        "shed": "powerhall_twin.commands.shed",
        "warm-up": "powerhall_twin.commands.warm_up",
    },
)


def parser() -> argparse.ArgumentParser:
    """Return the parser with every sub-command."""
    return program_parser(PROGRAM)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code."""
    return run_program(PROGRAM, argv)
