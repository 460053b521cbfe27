"""`powerhall-twin replay`: a job trace or a recorded plan under several policies."""

import argparse
import sys
from pathlib import Path

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
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
than the wall clock, under several policies, the same budgets and weather. With --out it writes report.html and
results.json into a folder; a replay that was killed goes on there with the policies that are not done. Jobs with wrong
fields are left out and counted. Exit code 1 when a budget did not hold.

examples:
  powerhall-twin replay --site site.toml --jobs philly_jobs.csv.gz --length 24h --out out/replay
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
    parser.add_argument("--policies", default=names, metavar="NAMES", help=f"default: {', '.join(POLICY_KINDS)}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for report, results and finished runs")
    parser.add_argument(
        "--parquet", action="store_true", help="with --out: also jobs.parquet, power.parquet and policies.parquet"
    )


def _replay(args: argparse.Namespace) -> int:
    from powerhall_twin.replay.replay import run_policies

    names = tuple(name.strip() for name in args.policies.split(",") if name.strip())
    case, timing = read_case(args), read_timing(args)
    if args.parquet and args.out is None:
        raise Rejected("command line: --parquet: needs --out")
    if args.out is None:
        return print_outcomes(run_policies(case, names, timing, progress(args)), as_json=args.json)
    from powerhall.report.html_page import require_libraries
    from powerhall_twin.policies.policy import PolicyInputs
    from powerhall_twin.replay.figures import results_of
    from powerhall_twin.replay.saved_runs import SavedRuns, inputs_hash
    from powerhall_twin.report.parquet import require_parquet, write_parquet
    from powerhall_twin.report.replay_page import write_replay

    require_libraries("--out")
    if args.parquet:
        require_parquet()
    inputs = inputs_hash(PolicyInputs(case.scenario, timing, case.plan))
    outcomes = run_policies(case, names, timing, progress(args), SavedRuns(args.out, inputs))
    write_replay(results_of(case.scenario, outcomes, case.notes, inputs), outcomes, case.scenario.site, args.out)
    if args.parquet:
        write_parquet(outcomes, args.out)
    code = print_outcomes(outcomes, as_json=args.json)
    if not args.json:
        sys.stdout.write(f"{args.out / 'report.html'}\n")
    return code
