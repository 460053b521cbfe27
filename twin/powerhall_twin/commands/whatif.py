"""`powerhall-twin whatif`: the same jobs under other budgets."""

import argparse

from powerhall.runtime.command_line import Commands, add_command
from powerhall_twin.commands.replay_options import (
    add_replay_options,
    print_outcomes,
    progress,
    read_case,
    read_timing,
)
from powerhall_twin.policies.registry import DEFAULT_POLICY, POLICY_KINDS

__all__ = ["add_parser"]

_TEXT = """\
Simulates the same jobs under other budgets. Each --change adds a run and holds one or more changes, separated by
commas: a power, a percentage or a difference of the grid's or a zone's power, or a percentage of a hall's cooling.

examples:
  powerhall-twin whatif --site site.toml --jobs jobs.csv --change grid=-20% --change grid=+100kW
  powerhall-twin whatif --site site.toml --jobs jobs.csv --change "hall3.power=120 kW,hall3.cooling=-10%" --policy easy
  powerhall-twin whatif --plan plan.json --change grid=-10%
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "whatif", _whatif, help="run the same jobs with other budgets", description=_TEXT)
    add_replay_options(parser)
    parser.add_argument("--change", action="append", required=True, metavar="CHANGES", help='such as "grid=-20%%"')
    names = ", ".join(POLICY_KINDS)
    parser.add_argument("--policy", default=DEFAULT_POLICY, metavar="NAME", help=f"{names}; default: {DEFAULT_POLICY}")


def _whatif(args: argparse.Namespace) -> int:
    from powerhall_twin.replay.replay import run_what_ifs

    outcomes = run_what_ifs(read_case(args), args.change, args.policy, read_timing(args), progress(args))
    return print_outcomes(outcomes, as_json=args.json)
