"""`powerhall-optimizer explain`: why a job waits, runs later or slower, and what would change it."""

import argparse
import json
import sys
from pathlib import Path

from powerhall.plan.multi_site import read_plans
from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.extras import EXIT_OK
from powerhall_optimizer.planning.explain import job_lines

__all__ = ["add_parser"]


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands,
        "explain",
        run,
        help="why a job waits or runs slower, and what would change it, in numbers",
        description="Derives everything from the plan: the missing capacity, what would start the job, "
        "from which weight it pays its prices, and its best alternatives.",
    )
    parser.add_argument("job", help="job id")
    parser.add_argument("--plan", type=Path, default=Path("plan.json"), help="plan file (default: plan.json)")
    parser.add_argument("--json", action="store_true", help="print the plan's entry for the job as JSON")


def run(args: argparse.Namespace) -> int:
    """Explain one job."""
    plan = read_plans(args.plan)
    lines = job_lines(plan, args.job, str(args.plan))
    if args.json:
        sys.stdout.write(json.dumps({"job_id": args.job, "plan_id": plan.plan_id, "lines": lines}) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines)
    return EXIT_OK
