"""`powerhall-twin shed`: an emergency shed on the demo's site, second by second."""

import argparse
import sys
from pathlib import Path

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.units import parse_share, parse_span
from powerhall_twin.commands.ranges import check_range

__all__ = ["add_parser"]

_TEXT = """\
Runs the demo's site, 96 nodes of 8 simulated GPUs under the agent's cappers, on a plan of the optimizer, in steps of a
quarter of a second. Then the grid operator asks for a cut: the optimizer's shed lowers leases, the scheduler stops jobs
three seconds later, and the building's meter shows when the cut holds. Exit code 1 when it does not hold in time, or
when a job that may not be preempted was slowed or stopped.

examples:
  powerhall-twin shed
  powerhall-twin shed --by 40% --within 5s --seed 3 --json
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "shed", _shed, help="an emergency shed on the demo's site", description=_TEXT)
    parser.add_argument("--out", type=Path, default=Path("out/shed"), help="folder for state and store (out/shed)")
    parser.add_argument(
        "--by", type=parse_share, default=0.3, metavar="SHARE", help="share of the power (default: 30%%)"
    )
    parser.add_argument("--within", type=parse_span, default=10.0, metavar="SPAN", help="deadline (default: 10s)")
    parser.add_argument(
        "--poll", type=parse_span, default=2.0, metavar="SPAN", help="interval of carriers (default: 2s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of jobs and polls (1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _shed(args: argparse.Namespace) -> int:
    import msgspec

    from powerhall_twin.replay.compiling import compile_when_cold
    from powerhall_twin.shed.shed_site import ShedSettings
    from powerhall_twin.shed.trial import run_shed

    check_range("--by in percent", 100 * args.by, 1, 100)
    check_range("--within", args.within, 1, 600)
    check_range("--poll", args.poll, 0.1, 60)
    settings = ShedSettings(
        args.out, share=args.by, within_s=args.within, after_s=args.within + 50, poll_s=args.poll, seed=args.seed
    )
    compile_when_cold(quiet=args.json)
    trial = run_shed(settings)
    if args.json:
        sys.stdout.write(msgspec.json.encode(trial).decode() + "\n")
    else:
        sys.stdout.write(trial.text())
    return EXIT_OK if trial.ok else EXIT_REFUSED
