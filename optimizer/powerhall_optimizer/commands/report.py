"""`powerhall-optimizer report`: a plan as an HTML page."""

import argparse
import sys
from pathlib import Path

from powerhall.plan.multi_site import read_plans
from powerhall.runtime.extras import EXIT_OK
from powerhall_optimizer.report.page import write_report

__all__ = ["add_parser"]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command."""
    parser = commands.add_parser("report", help="write a plan as one self-contained HTML page")
    parser.add_argument("plan", type=Path, help="plan.json")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="page to write (default: report.html)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    write_report(read_plans(args.plan), args.out)
    sys.stdout.write(f"{args.out}\n")
    return EXIT_OK
