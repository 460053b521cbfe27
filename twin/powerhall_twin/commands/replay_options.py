"""Options and output that `replay` and `whatif` share."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from powerhall.jobs.readers.formats import JOB_FORMATS, format_titles
from powerhall.runtime.command_line import option_value
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.timeseries import parse_time
from powerhall.units import parse_duration

if TYPE_CHECKING:
    from powerhall_twin.policies.engine import SimulationOutcome
    from powerhall_twin.policies.policy import RoundTiming
    from powerhall_twin.replay.replay import ReplayCase

__all__ = ["add_replay_options", "print_outcomes", "progress", "read_case", "read_timing"]


def add_replay_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of site, jobs, window and rounds."""
    parser.add_argument("--site", type=Path, help="site.toml")
    parser.add_argument("--jobs", type=Path, help=f"trace: {format_titles()}")
    parser.add_argument("--jobs-format", choices=sorted(JOB_FORMATS), help="default: detected")
    parser.add_argument("--plan", type=Path, help="plan.json: its site, queue, weather and prices, instead of --site")
    parser.add_argument("--hours", type=float, default=24.0, help="length of the window (default: 24)")
    parser.add_argument("--start", help="begin of the window in the trace (default: its busiest one)")
    parser.add_argument("--at", help="time of the site at which the window begins (default: the trace's own)")
    parser.add_argument(
        "--preemptible", action="store_true", help="jobs may be stopped; work since the last minute is lost"
    )
    parser.add_argument("--round", default="30min", help="time between rounds (default: 30min)")
    parser.add_argument("--horizon", default="6h", help="length of a plan (default: 6h)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time to solve each round (default: 2)")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")


def read_case(args: argparse.Namespace) -> "ReplayCase":
    """Return the site, jobs and window of the options."""
    from powerhall.plan.plan import read_plan
    from powerhall_twin.replay.replay import from_plan, from_trace

    if args.plan is not None:
        if args.site is not None or args.jobs is not None:
            raise Rejected("command line: --plan: carries its own site and jobs; leave out --site and --jobs")
        return from_plan(read_plan(args.plan))
    if args.site is None or args.jobs is None:
        raise Rejected("command line: needs --site and --jobs, or --plan")
    if not 0.1 <= args.hours <= 24 * 60:
        raise Rejected.field("command line", "--hours", f"{args.hours:g}", "must be from 0.1 to 1440")
    return from_trace(
        args.site,
        args.jobs,
        args.jobs_format,
        hours=args.hours,
        start_s=_optional("--start", args.start, parse_time),
        at_s=_optional("--at", args.at, parse_time),
        preemptible=args.preemptible,
    )


def read_timing(args: argparse.Namespace) -> "RoundTiming":
    """Return the time between rounds, the length of a plan and the time to solve one."""
    from powerhall_twin.policies.policy import RoundTiming

    round_s = option_value("--round", args.round, parse_duration)
    horizon_s = option_value("--horizon", args.horizon, parse_duration)
    if not 300 <= round_s <= 86400:
        raise Rejected.field("command line", "--round", args.round, "must be from 5min to 24h")
    if not 300 <= horizon_s <= 14 * 86400:
        raise Rejected.field("command line", "--horizon", args.horizon, "must be from 5min to 14d")
    if not 0 < args.seconds <= 3600:
        raise Rejected.field("command line", "--seconds", f"{args.seconds:g}", "must be above 0 and at most 3600")
    return RoundTiming(round_s, horizon_s, args.seconds)


def progress(args: argparse.Namespace) -> Callable[[str], None]:
    """Return a function that writes progress to stderr; with `--json` it writes nothing."""

    def report(text: str) -> None:
        if not args.json:
            sys.stderr.write(f"{text} ...\n")

    return report


def _figures(outcome: "SimulationOutcome") -> dict[str, float | int | str]:
    return {
        "name": outcome.policy,
        "work_gpu_s": outcome.work_gpu_s,
        "weighted_work": outcome.weighted_work,
        "energy_j": outcome.energy_j,
        "cost": outcome.cost,
        "peak_power_w": outcome.peak_w,
        "jobs": outcome.jobs,
        "jobs_done": outcome.jobs_done,
        "stops": outcome.stops,
        "mean_wait_s": outcome.wait_s,
        "over_budget_s": outcome.over_budget_s,
        "least_headroom": min(outcome.guard.worst_headroom.values(), default=1.0),
    }


def print_outcomes(outcomes: Sequence["SimulationOutcome"], *, as_json: bool) -> int:
    """Print one row for each run; the exit code is 1 where a budget did not hold."""
    rows = [_figures(outcome) for outcome in outcomes]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    else:
        sys.stdout.write(_table(outcomes))
    return EXIT_REFUSED if any(outcome.over_budget_s > 0 for outcome in outcomes) else EXIT_OK


def _table(outcomes: Sequence["SimulationOutcome"]) -> str:
    width = max(14, *(len(o.policy) for o in outcomes))
    head = ("GPU h", "weighted", "MWh", "USD", "peak kW", "done", "stops", "wait min", "over s")
    lines = [f"{'':<{width}}" + "".join(f"{name:>10}" for name in head)]
    for o in outcomes:
        values = (o.work_gpu_s / 3600, o.weighted_work / 3600, o.energy_j / 3.6e9, o.cost, o.peak_w / 1e3)
        decimals = (0, 0, 2, 0, 1)
        cells = "".join(f"{v:>10,.{d}f}" for v, d in zip(values, decimals, strict=True))
        cells += f"{o.jobs_done:>10}{o.stops:>10}{o.wait_s / 60:>10.0f}{o.over_budget_s:>10.0f}"
        lines.append(f"{o.policy:<{width}}{cells}")
    return "\n".join(lines) + "\n"


def _optional(option: str, text: str | None, parse: Callable[[str], float]) -> float | None:
    return None if text is None else option_value(option, text, parse)
