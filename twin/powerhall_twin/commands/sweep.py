"""`powerhall-twin sweep`: a grid of budgets, policies and seeds."""

import argparse
import sys
from pathlib import Path

import msgspec

from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK, EXIT_REFUSED
from powerhall.runtime.files import replace_file
from powerhall_twin.commands.calls_options import add_calls_options, check_calls_options
from powerhall_twin.commands.ranges import check_range
from powerhall_twin.commands.replay_options import add_replay_options, progress, read_case, read_policies, read_timing

__all__ = ["add_parser"]

_TEXT = """\
Runs a grid of budgets, policies and drawn workloads in several processes, or on a Dask cluster, and writes a table,
with --out also as JSON, which `compare` reads, and as a page with plots. Each --change is one budget, such as
grid=-20%, as of `whatif`; the site as it is comes first. The same grid gives the same rows on any number of workers;
one that was killed goes on with the runs that are not done. Exit code 1 when a budget did not hold.

examples:
  powerhall-twin sweep --site site.toml --jobs jobs.csv --change grid=-10% --change grid=-20% --seeds 5 --out sweep.json
  powerhall-twin sweep --site site.toml --jobs jobs.csv --seeds 100 --out sweep.json --scheduler tcp://10.0.0.1:8786
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(commands, "sweep", _sweep, help="run a grid of budgets, policies and seeds", description=_TEXT)
    add_replay_options(parser)
    parser.add_argument("--change", action="append", default=[], metavar="CHANGES", help='such as "grid=-20%%"')
    parser.add_argument("--policies", default="fcfs,easy,lowcap", metavar="NAMES", help="default: fcfs,easy,lowcap")
    parser.add_argument("--seeds", type=int, default=0, help="drawn workloads; 0 (default) runs the jobs as they are")
    add_calls_options(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file of the rows, with a page beside it")


def _sweep(args: argparse.Namespace) -> int:
    from powerhall_twin.replay.calls import calls_on
    from powerhall_twin.replay.kept_rows import inputs_hash, kept_beside
    from powerhall_twin.replay.replay import with_change
    from powerhall_twin.replay.sweep import SweepRow, run_sweep, sweep_points
    from powerhall_twin.report.sweep_page import write_sweep

    workers = check_calls_options(args)
    check_range("--seeds", args.seeds, 0, 1000)
    if args.out is not None and args.out.suffix == ".html":
        raise Rejected.field(
            "command line", "--out", str(args.out), "must not end in .html, as the page beside it does"
        )
    case, timing = read_case(args), read_timing(args)
    names = read_policies(args, case)
    for change in args.change:
        with_change(case, change)
    points = sweep_points(["", *args.change], names, range(1, args.seeds + 1) if args.seeds else [0])
    with kept_beside(args.out, inputs_hash(case.scenario, case.failures, timing), SweepRow) as kept:
        with calls_on(args.scheduler, workers) as calls:
            rows = run_sweep(case, points, timing, calls, progress(args), kept=kept)
        text = msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n"
        if args.out is not None:
            replace_file(args.out, text)
            write_sweep(rows, case.scenario.site.name, args.out.with_suffix(".html"))
    if args.json:
        sys.stdout.write(text.decode())
    else:
        head = ("seed", "weighted", "per MWh", "MWh", "USD", "done", "wait min", "over s")
        sys.stdout.write(f"{'change':<20}{'policy':<12}" + "".join(f"{name:>10}" for name in head) + "\n")
        for row in rows:
            f = row.figures
            cells = (
                f"{row.seed:>10}{f.weighted_work / 3600:>10,.0f}{f.work_per_mwh:>10,.1f}{f.energy_j / 3.6e9:>10,.2f}"
            )
            cells += f"{f.cost:>10,.0f}{f.jobs_done:>10}{f.mean_wait_s / 60:>10,.0f}{f.over_budget_s:>10,.0f}"
            sys.stdout.write(f"{row.change or 'as it is':<20}{row.policy:<12}{cells}\n")
    return EXIT_REFUSED if any(row.figures.over_budget_s > 0 for row in rows) else EXIT_OK
