"""`powerhall-optimizer rcpsp FILE.sm`: solve one PSPLIB project and report the proved bound."""

import argparse
import json
import sys
from pathlib import Path

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.decode.numbers_in import digits
from powerhall.runtime.extras import EXIT_OK
from powerhall_optimizer.rcpsp import psplib
from powerhall_optimizer.rcpsp.instance import Instance
from powerhall_optimizer.rcpsp.portfolio import ProjectResult, solve

__all__ = ["add_parser", "count", "positive", "run"]

_DESCRIPTION = """\
Solve one standard project-scheduling instance (RCPSP, single mode, PSPLIB .sm file): every task gets a start so that
precedence and resource capacities hold and the project ends as early as possible. The answer carries a lower bound that
is proved: when it equals the makespan, no shorter schedule exists. Every schedule is checked again before it is shown.
"""
_EPILOG = """\
examples:
  powerhall-optimizer rcpsp j301_1.sm                     solve with the default of 60 s on 2 workers
  powerhall-optimizer rcpsp j1201_1.sm --seconds 10       stop after 10 s, proved or not
  powerhall-optimizer rcpsp j301_1.sm --json | jq .starts the starts, in the order of the file's jobs

exit codes: 0 a checked schedule was found (proved or not), 1 the file was refused, 2 wrong usage, 3 internal error
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command `rcpsp`."""
    parser = add_command(
        commands,
        "rcpsp",
        run,
        help="solve one PSPLIB project-scheduling instance with a proved lower bound",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("file", type=Path, metavar="FILE.sm", help="a single-mode PSPLIB file")
    parser.add_argument(
        "--seconds", type=positive, default=60.0, help="stop after this long if not proved before (default 60)"
    )
    parser.add_argument("--workers", type=count, default=2, help="threads to use (default 2)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random choices (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Solve the file named in the arguments and print the answer; return the exit code."""
    instance = psplib.read(arguments.file)
    result = solve(instance, arguments.seconds, workers=arguments.workers, seed=arguments.seed)
    text = _as_json(result) if arguments.json else _as_text(instance, result)
    sys.stdout.write(text + "\n")
    return EXIT_OK


def _as_json(result: ProjectResult) -> str:
    return json.dumps(
        {
            "instance": result.name,
            "makespan": result.makespan,
            "lower_bound": result.lower_bound,
            "proved": result.proved,
            "gap": result.gap,
            "seconds": round(result.seconds, 3),
            "starts": list(result.schedule.starts),
        }
    )


def _as_text(instance: Instance, result: ProjectResult) -> str:
    verdict = "proved shortest" if result.proved else f"gap {result.gap:.1%}, not proved shortest"
    lines = [
        f"{result.name}: {instance.size} jobs, {len(instance.capacities)} resources",
        f"makespan {result.makespan}, proved lower bound {result.lower_bound}: {verdict}; {result.seconds:.1f} s",
        "  job  start  finish",
    ]
    for task, start in enumerate(result.schedule.starts):
        lines.append(f"{task + 1:5} {start:6} {start + instance.durations[task]:7}")
    return "\n".join(lines)


def positive(text: str) -> float:
    """Read a number of seconds above 0 from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds above 0")
    return value


def count(text: str) -> int:
    """Read a whole number of at least 1 from the command line."""
    value = digits(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: must be a whole number of at least 1")
    return value
