"""Options and output that `replay` and `whatif` share."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from powerhall.forecasts.local_time import parse_zone_or_offset
from powerhall.jobs.readers.formats import JOB_FORMATS, format_titles
from powerhall.runtime.command_line import option_value
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.timeseries import parse_time
from powerhall.units import parse_span

if TYPE_CHECKING:
    from powerhall_twin.engine.outcome import SimulationOutcome
    from powerhall_twin.policies.policy import RoundTiming
    from powerhall_twin.replay.replay import ReplayCase

T = TypeVar("T")

__all__ = ["add_replay_options", "print_outcomes", "progress", "read_case", "read_policies", "read_timing"]


def add_replay_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of site, jobs, window and rounds."""
    parser.add_argument("--site", type=Path, help="site.toml")
    parser.add_argument("--jobs", type=Path, help=f"trace: {format_titles()}")
    parser.add_argument("--jobs-format", choices=sorted(JOB_FORMATS), help="default: detected")
    parser.add_argument(
        "--jobs-timezone", help="time zone or offset of times without one (default: the site's timezone, else UTC)"
    )
    parser.add_argument("--plan", type=Path, help="plan.json: its site, queue, weather and prices, instead of --site")
    parser.add_argument(
        "--length", type=parse_span, default=86_400.0, metavar="SPAN", help="length of the window (default: 24h)"
    )
    parser.add_argument("--hours", type=partial(parse_span, bare="h"), dest="length", help=argparse.SUPPRESS)
    parser.add_argument("--start", help="begin of the window in the trace (default: its busiest one)")
    parser.add_argument("--at", help="time of the site at which the window begins (default: the trace's own)")
    parser.add_argument(
        "--preemptible", action="store_true", help="jobs may be stopped; work since the last minute is lost"
    )
    parser.add_argument(
        "--failures",
        type=Path,
        metavar="FILE",
        help="TOML file of failures of GPUs, nodes, plants, pumps and feeds, fixed or as rates",
    )
    parser.add_argument("--failure-seed", type=int, default=1, metavar="N", help="seed of drawn failures (default: 1)")
    parser.add_argument("--round", default="30min", help="time between rounds (default: 30min)")
    parser.add_argument(
        "--event", metavar="TIME", help="a round also when a job came or ended and the last one is so long ago"
    )
    parser.add_argument("--horizon", default="6h", help="length of a plan (default: 6h)")
    parser.add_argument(
        "--seconds", type=parse_span, default=2.0, metavar="SPAN", help="time to solve each round (default: 2s)"
    )
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="settings of the rounds, as of `powerhall-optimizer round`"
    )
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")


def read_case(args: argparse.Namespace) -> "ReplayCase":
    """Return the site, jobs and window of the options; what is left out or put right is said on stderr."""
    from powerhall_twin.replay.compiling import compile_when_cold

    case = _case(args)
    sys.stderr.writelines(f"{note}\n" for note in case.notes)
    compile_when_cold(quiet=args.json)
    return case


def _case(args: argparse.Namespace) -> "ReplayCase":
    from powerhall.plan.plan import read_plan
    from powerhall_twin.replay.replay import from_plan, from_trace

    if args.plan is not None:
        if args.site is not None or args.jobs is not None:
            raise Rejected("command line: --plan: carries its own site and jobs; leave out --site and --jobs")
        if args.failures is not None:
            raise Rejected("command line: --failures: needs --site and --jobs; leave out --plan")
        return from_plan(read_plan(args.plan))
    if args.site is None or args.jobs is None:
        raise Rejected("command line: needs --site and --jobs, or --plan")
    hours = args.length / 3600.0
    if not 0.1 <= hours <= 24 * 60:
        raise Rejected.field("command line", "--length", f"{hours:g} h", "must be from 0.1 h to 1440 h")
    return from_trace(
        args.site,
        args.jobs,
        args.jobs_format,
        hours=hours,
        start_s=_optional("--start", args.start, parse_time),
        at_s=_optional("--at", args.at, parse_time),
        preemptible=args.preemptible,
        zone=_optional("--jobs-timezone", args.jobs_timezone, parse_zone_or_offset),
        failures_path=args.failures,
        failure_seed=args.failure_seed,
    )


def read_timing(args: argparse.Namespace) -> "RoundTiming":
    """Return the time between rounds, the length of a plan and the time to solve one."""
    from powerhall_optimizer.inputs.round_settings import read_settings
    from powerhall_twin.policies.policy import RoundTiming

    round_s = option_value("--round", args.round, parse_span)
    horizon_s = option_value("--horizon", args.horizon, parse_span)
    if not 300 <= round_s <= 86400:
        raise Rejected.field("command line", "--round", args.round, "must be from 5min to 24h")
    if not 300 <= horizon_s <= 14 * 86400:
        raise Rejected.field("command line", "--horizon", args.horizon, "must be from 5min to 14d")
    if not 0 < args.seconds <= 3600:
        raise Rejected.field("command line", "--seconds", f"{args.seconds:g}", "must be above 0 and at most 3600")
    event_s = math.inf if args.event is None else option_value("--event", args.event, parse_span)
    if event_s < 60:
        raise Rejected.field("command line", "--event", args.event, "must be at least 1min")
    settings = None if args.settings is None else read_settings(args.settings)
    return RoundTiming(round_s, horizon_s, args.seconds, event_s, settings)


def read_policies(args: argparse.Namespace, case: "ReplayCase") -> list[str]:
    """Return the names of --policies, each known and named once."""
    from powerhall_twin.policies.policy import PolicyInputs
    from powerhall_twin.policies.registry import policy_kind

    names = list(dict.fromkeys(name.strip() for name in args.policies.split(",") if name.strip()))
    if not names:
        raise Rejected.field("command line", "--policies", args.policies, "must name at least one policy")
    for name in names:
        policy_kind(name, PolicyInputs(case.scenario))
    return names


def progress(args: argparse.Namespace) -> Callable[[str, float], None]:
    """Return a function that shows on stderr how far each run is; with `--json` it writes nothing.

    A terminal gets one line per run that counts up, anything else a line when a run begins.
    """
    shown: dict[str, int] = {}

    def report(name: str, part: float) -> None:
        percent = int(100 * part)
        if args.json or shown.get(name) == percent:
            return
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{name} {percent:3d} %{' ...' if percent < 99 else ' done'}\x1b[K")
            if percent >= 99:
                sys.stderr.write("\n")
            sys.stderr.flush()
        elif name not in shown:
            sys.stderr.write(f"{name} ...\n")
        shown[name] = percent

    return report


def print_outcomes(outcomes: Sequence["SimulationOutcome"], *, as_json: bool) -> int:
    """Print one row for each run; the exit code is 1 where a budget did not hold."""
    from powerhall_twin.replay.figures import figures_of

    if as_json:
        rows = msgspec.json.encode([figures_of(outcome) for outcome in outcomes])
        sys.stdout.write(msgspec.json.format(rows, indent=1).decode() + "\n")
    else:
        sys.stdout.write(_table(outcomes))
    return EXIT_REFUSED if any(outcome.over_budget_s > 0 for outcome in outcomes) else EXIT_OK


def _table(outcomes: Sequence["SimulationOutcome"]) -> str:
    width = max(14, *(len(o.policy) for o in outcomes))
    head = ("GPU h", "weighted", "MWh", "USD", "peak kW", "done", "stops", "wait min", "p95 min", "late", "over s")
    lines = [f"{'':<{width}}" + "".join(f"{name:>10}" for name in head)]
    for o in outcomes:
        values = (o.work_gpu_s / 3600, o.weighted_work / 3600, o.energy_j / 3.6e9, o.cost, o.peak_w / 1e3)
        decimals = (0, 0, 2, 0, 1)
        cells = "".join(f"{v:>10,.{d}f}" for v, d in zip(values, decimals, strict=True))
        cells += f"{o.jobs_done:>10}{o.stops:>10}{o.wait_s / 60:>10.0f}{o.wait_p95_s / 60:>10.0f}"
        cells += f"{o.deadlines_missed:>10}{o.over_budget_s:>10.0f}"
        lines.append(f"{o.policy:<{width}}{cells}")
    return "\n".join(lines) + "\n"


def _optional(option: str, text: str | None, parse: Callable[[str], T]) -> T | None:
    return None if text is None else option_value(option, text, parse)
