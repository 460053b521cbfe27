"""`powerhall-twin replay`: a job trace or a recorded plan under several policies."""

import argparse

from powerhall.runtime.command_line import Commands, add_command
from powerhall_twin.commands.replay_options import (
    add_replay_options,
    print_outcomes,
    progress,
    read_case,
    read_timing,
)
from powerhall_twin.policies.registry import POLICY_KINDS

__all__ = ["add_parser"]

_TEXT = """\
Simulates a job trace, or the queue of a recorded plan, event by event and without agents, thousands of times faster
than the wall clock. Compares Powerhall's rounds with first come first served, EASY backfilling and one power cap for
all, under the same budgets and weather. Exit code 1 when a budget did not hold.

examples:
  powerhall-twin replay --site site.toml --jobs philly_jobs.csv.gz --hours 24
  powerhall-twin replay --site site.toml --jobs trace.swf --start 2017-10-09T00:00Z --policies fcfs,easy
  powerhall-twin replay --plan plan.json --json
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "replay", _replay, help="run a trace or a recorded plan under several policies", description=_TEXT
    )
    add_replay_options(parser)
    names = ",".join(POLICY_KINDS)
    parser.add_argument("--policies", default=names, metavar="NAMES", help=f"default: {names}")


def _replay(args: argparse.Namespace) -> int:
    from powerhall_twin.replay.replay import run_policies

    names = tuple(name.strip() for name in args.policies.split(",") if name.strip())
    outcomes = run_policies(read_case(args), names, read_timing(args), progress(args))
    return print_outcomes(outcomes, as_json=args.json)
