"""`powerhall-twin hindsight`: what a scheduler lost, from its accounting and the site's meter."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from powerhall.forecasts.local_time import parse_zone_or_offset
from powerhall.runtime.command_line import Commands, add_command, option_value
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.signals import StopFlag
from powerhall.timeseries import parse_time
from powerhall.units import parse_span
from powerhall_twin.commands.ranges import check_range

if TYPE_CHECKING:
    from powerhall.plan.plan import Plan
    from powerhall_twin.hindsight.hindsight import Hindsight, HindsightCase

__all__ = ["add_parser"]

_TEXT = """\
Compares what a scheduler did with what was possible: the most that any policy could have earned under the site's
budgets with the same jobs, a verified plan that shows how, and the distance to both. Needs no agent: only Slurm's
accounting and, where there is one, the site's meter, by which the modelled power of the jobs is calibrated.

  sacct --allusers --parsable2 --starttime 2026-07-01 --endtime 2026-07-08 --state CD,F,TO,CA,NF,OOM,PR,R \\
    --format JobIDRaw,Submit,Eligible,Start,End,Elapsed,AllocTRES,Partition,State,NodeList > july.txt

examples:
  powerhall-twin hindsight --site site.toml --sacct july.txt --out out/july
  powerhall-twin hindsight --site site.toml --sacct july.txt --meter meter.csv --prices prices.csv --length 24h --json
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands, "hindsight", _hindsight, help="what a scheduler lost, from sacct and a meter", description=_TEXT
    )
    parser.add_argument("--site", type=Path, required=True, help="site.toml")
    parser.add_argument("--sacct", type=Path, required=True, help="output of sacct --parsable2, with Start or End")
    parser.add_argument(
        "--meter", type=Path, help="CSV of the power at the site's meter: time, and power_w, _kw or _mw"
    )
    parser.add_argument("--weather", type=Path, help="instead of the site file's: EPW or CSV")
    parser.add_argument("--prices", type=Path, help="instead of the site file's: CSV of $/MWh")
    parser.add_argument("--carbon", type=Path, help="instead of the site file's: CSV of g CO2/kWh")
    parser.add_argument(
        "--timezone", help="time zone or offset of times without one in sacct and meter (default: the site's, else UTC)"
    )
    parser.add_argument("--start", help="begin of the window (default: the first submission)")
    parser.add_argument("--length", type=parse_span, metavar="SPAN", help="length of it (default: to the last end)")
    parser.add_argument("--slot", type=parse_span, metavar="SPAN", help="length of a slot (default: 5 to 15 min)")
    parser.add_argument("--settings", type=Path, help="TOML file of a round's settings: objective, seed, workers")
    parser.add_argument(
        "--seconds", type=parse_span, default=60.0, metavar="SPAN", help="time to plan; more narrows the range (60s)"
    )
    parser.add_argument("--no-calibration", action="store_true", help="compare with the meter, and change nothing")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for report.html, report.pdf, result and plan")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _hindsight(args: argparse.Namespace) -> int:
    from powerhall_optimizer.inputs.round_settings import read_settings
    from powerhall_twin.hindsight.hindsight import hindsight

    check_range("--seconds", args.seconds, 0.1, 86_400)
    if args.out is not None:
        from powerhall.report.html_page import require_libraries

        require_libraries("--out")
        args.out.mkdir(parents=True, exist_ok=True)
    settings = read_settings(args.settings)
    with StopFlag() as stop:
        result, plan = hindsight(_case(args), settings, args.seconds, stop=stop)
    written = [] if args.out is None else _write(result, plan, args.out)
    if args.json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        return EXIT_OK
    from powerhall_twin.report.hindsight_text import hindsight_text

    sys.stdout.write(hindsight_text(result))
    sys.stdout.writelines(f"{line}\n" for line in written)
    return EXIT_OK


def _case(args: argparse.Namespace) -> "HindsightCase":
    from powerhall.jobs.readers.sacct_runs import read_sacct_runs
    from powerhall.site.site_file import read_site
    from powerhall_optimizer.inputs.snapshot import SiteInputs
    from powerhall_twin.hindsight.hindsight import HindsightCase
    from powerhall_twin.hindsight.meter import read_meter
    from powerhall_twin.hindsight.window import choose_horizon, window_of

    site, planning = read_site(args.site)
    given = {name: getattr(args, name) for name in ("weather", "prices", "carbon") if getattr(args, name) is not None}
    planning = msgspec.structs.replace(planning, **given)
    zone = planning.zone
    if args.timezone is not None:
        zone = option_value("--timezone", args.timezone, parse_zone_or_offset)
    runs = read_sacct_runs(args.sacct, zone)
    start_s = None if args.start is None else option_value("--start", args.start, lambda text: parse_time(text, zone))
    if args.slot is not None:
        check_range("--slot", args.slot, 60, 3600)
    horizon = choose_horizon(runs.runs, start_s, args.length, None if args.slot is None else int(args.slot))
    window = window_of(site, runs.runs, horizon)
    meter = None if args.meter is None else read_meter(args.meter, zone, horizon)
    return HindsightCase(SiteInputs(site, planning), runs, window, meter, not args.no_calibration)


def _write(result: "Hindsight", plan: "Plan", out: Path) -> list[str]:
    from powerhall.plan.plan import write_plan
    from powerhall_twin.report.hindsight_page import write_hindsight

    write_plan(plan, out / "plan.json")
    return write_hindsight(result, out)
