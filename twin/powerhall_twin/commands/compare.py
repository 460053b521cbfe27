"""`powerhall-twin compare`: differences between two sweeps or replays, with intervals."""

import argparse
import sys
from pathlib import Path

import msgspec

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK

__all__ = ["add_parser"]

_TEXT = """\
Compares two files of `sweep --out`, such as of two site files or two versions: second over first, for each budget and
policy, over the seeds that both have, with a 95 % interval of the mean (Student's t). A `results.json` of a replay is
one run of each policy: its differences have no interval.

examples:
  powerhall-twin compare before.json after.json
  powerhall-twin compare out/before/results.json out/after/results.json
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "compare", _compare, help="differences between two sweeps or replays", description=_TEXT
    )
    parser.add_argument("first", type=Path, help="file of sweep --out, or results.json of replay")
    parser.add_argument("second", type=Path, help="file of sweep --out, or results.json of replay")
    parser.add_argument("--json", action="store_true", help="print the differences as JSON")


def _compare(args: argparse.Namespace) -> int:
    from powerhall_twin.replay.compare import compare_rows, rows_of

    found = compare_rows(rows_of(args.first), rows_of(args.second))
    if not found:
        raise Rejected(f"{args.second}: shares no change, policy and seed with {args.first}")
    if args.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
        return EXIT_OK
    for one in found:
        span = "" if one.low is None or one.high is None else f"  {one.low:+.1%} to {one.high:+.1%}"
        line = f"{one.change or 'as it is':<20}{one.policy:<12}{one.figure:<15}{one.mean:>+8.1%}{span}"
        sys.stdout.write(f"{line}  ({one.seeds} seed{'s' if one.seeds > 1 else ''})\n")
    return EXIT_OK
