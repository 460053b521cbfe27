"""`powerhall-optimizer explain`: why a job waits, runs later or slower, and what would change it."""

import argparse
import json
import sys
from pathlib import Path

import msgspec

from powerhall.plan.multi_site import read_plans
from powerhall.plan.plan import Plan
from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.units import parse_span
from powerhall_optimizer.commands.consistent import consistent
from powerhall_optimizer.inputs.round_settings import read_settings
from powerhall_optimizer.planning.explanation import job_explanation, no_time
from powerhall_optimizer.round.planned_again import DEFAULT_S, PlannedAgain

__all__ = ["add_parser"]

_SECONDS = "time for planning again with the changes that may start the job; 0: none (default: %(default)g)"


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands,
        "explain",
        run,
        help="why a job waits or runs slower, and what would change it, in numbers",
        description="Names what holds the job back, and the changes of a limit, its weight, deadline, earliest start "
        "or halls that would start it. Each is checked by planning again with the change, from the plan in force and "
        "from nothing. 'Alone' marks one that is enough only as the only change, with everything else as planned.",
    )
    parser.add_argument("job", help="job id")
    parser.add_argument("--plan", type=Path, default=Path("plan.json"), help="plan file (default: plan.json)")
    parser.add_argument("--seconds", type=parse_span, default=DEFAULT_S, metavar="SPAN", help=_SECONDS)
    parser.add_argument("--settings", type=Path, metavar="FILE", help="settings of the rounds (TOML), as for `round`")
    parser.add_argument("--json", action="store_true", help="print the lines and the changes as JSON")


def run(args: argparse.Namespace) -> int:
    """Explain one job."""
    if not 0 <= args.seconds <= 3600:
        raise Rejected.field("explain", "--seconds", args.seconds, "must be from 0 to 3600")
    plan = read_plans(args.plan)
    settings = read_settings(args.settings)
    with consistent(args.plan):
        replan = PlannedAgain(plan, settings, args.seconds) if isinstance(plan, Plan) else no_time
        found = job_explanation(plan, args.job, str(args.plan), replan)
    if args.json:
        told = {"job_id": args.job, "plan_id": plan.plan_id, "lines": found.lines}
        told["would_start"] = [msgspec.to_builtins(promise) for promise in found.would_start]
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in found.lines)
    return EXIT_OK
