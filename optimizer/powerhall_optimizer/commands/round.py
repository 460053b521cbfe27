"""`powerhall-optimizer round`: one planning round."""

import argparse
import sys
import time
from pathlib import Path

from powerhall.errors import Rejected
from powerhall.extras import EXIT_OK
from powerhall.plan import write_plan
from powerhall.timeseries import parse_time
from powerhall.units import parse_duration
from powerhall_optimizer.observe import FORMATS, Horizon, floor_slot, from_files
from powerhall_optimizer.planner import make_plan
from powerhall_optimizer.settings import read_settings

__all__ = ["add_parser"]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command."""
    parser = commands.add_parser("round", help="read, solve, verify and publish one plan")
    parser.add_argument("--site", type=Path, required=True, help="site.toml")
    parser.add_argument("--jobs", type=Path, help="job file: own CSV or JSON, Philly CSV, sacct --parsable2, SWF")
    parser.add_argument("--jobs-format", choices=FORMATS, help="format of --jobs (default: detected)")
    parser.add_argument("--out", type=Path, default=Path("plan.json"), help="plan file (default: plan.json)")
    parser.add_argument("--settings", type=Path, help="TOML file with the round's settings")
    parser.add_argument("--start", help="begin of the plan (default: now)")
    parser.add_argument("--horizon", default="24h", help="length of the plan (default: 24h)")
    parser.add_argument("--seconds", type=float, default=60.0, help="time to solve (default: 60)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan once."""
    settings = read_settings(args.settings)
    try:
        length_s = parse_duration(args.horizon)
        start_s = time.time() if args.start is None else parse_time(args.start)
    except ValueError as error:
        raise Rejected.field("command line", "--start or --horizon", args.horizon, str(error)) from None
    horizon = Horizon(floor_slot(start_s, settings.slot_s), settings.slot_s, int(length_s))
    snapshot = from_files(args.site, args.jobs, args.jobs_format, horizon, settings.objective)
    plan = make_plan(snapshot, settings, args.seconds, created_s=int(time.time()))
    write_plan(plan, args.out)
    sys.stdout.write(f"{args.out}: {plan.status}, {len(plan.assignments)} jobs, gap {plan.gap:.2%}\n")
    return EXIT_OK
