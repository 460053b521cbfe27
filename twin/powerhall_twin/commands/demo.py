"""`powerhall-twin demo`: a simulated day at a site, with its report."""

import argparse
from functools import partial
from pathlib import Path

from powerhall.runtime.command_line import EXIT_INTERRUPTED, Commands, add_command
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.units import parse_span
from powerhall_twin.commands.ranges import check_range

__all__ = ["add_parser"]

_TEXT = """\
Simulates a day at a site of 3 halls, 12 racks and 96 nodes of 8 GPUs. The power of the simulated GPUs follows the
running jobs and their limits; node agents measure it into the store; an optimizer round runs every half hour; half-way
the grid is curtailed. At every sample the power of every zone and the heat of every plant is compared with its limit;
one sample over a limit makes the exit code 1.

examples:
  powerhall-twin demo
  powerhall-twin demo --out /tmp/day --length 4h --seed 3 --speedup 600
  powerhall-twin demo --store 'influxdb://127.0.0.1:8086/powerhall?token_file=token'
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "demo", _demo, help="simulate a day at a site and write a report", description=_TEXT)
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder for store, plan and report (out/demo)"
    )
    parser.add_argument(
        "--length",
        type=parse_span,
        default=480 * 60.0,
        metavar="SPAN",
        help="30min to 24h of the site (default: 8h)",
    )
    parser.add_argument("--minutes", type=partial(parse_span, bare="min"), dest="length", help=argparse.SUPPRESS)
    parser.add_argument(
        "--speedup", type=float, default=900.0, help="simulated seconds per second at most (default: 900)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the jobs and of sensor noise (default: 1)")
    parser.add_argument("--store", metavar="URL", help="store for telemetry and plans (default: sqlite in --out)")
    parser.add_argument("--no-compare", action="store_true", help="leave out the runs of other policies")
    parser.add_argument("--json", action="store_true", help="print summary.json instead of the table")


def _demo(args: argparse.Namespace) -> int:
    from powerhall_twin.demo.demo import run_demo
    from powerhall_twin.demo.demo_result import DemoSettings
    from powerhall_twin.report.finish import finish

    minutes = args.length / 60.0
    check_range("--length in minutes", minutes, 30, 1440)
    check_range("--speedup", args.speedup, 1, 100_000)
    settings = DemoSettings(
        out=args.out, minutes=minutes, speedup=args.speedup, seed=args.seed, store=args.store, quiet=args.json
    )
    result = run_demo(settings)
    summary = finish(result, compare=not args.no_compare, as_json=args.json)
    if summary.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_OK if summary.ok else EXIT_REFUSED
