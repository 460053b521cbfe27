"""`powerhall-optimizer report`: a plan as an HTML page."""

import argparse
import json
import sys
from pathlib import Path

from powerhall.plan.multi_site import read_plans
from powerhall.runtime.command_line import Commands, add_command, add_file
from powerhall.runtime.extras import EXIT_OK
from powerhall_optimizer.commands.consistent import consistent
from powerhall_optimizer.report.page import write_report

__all__ = ["add_parser"]


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "report", run, help="write a plan as one self-contained HTML page")
    add_file(parser, "plan", "plan.json")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="page to write (default: report.html)")


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    plan = read_plans(args.plan)
    with consistent(args.plan):
        write_report(plan, args.out)
    sys.stdout.write(json.dumps({"file": str(args.out)}) + "\n" if args.json else f"{args.out}\n")
    return EXIT_OK
