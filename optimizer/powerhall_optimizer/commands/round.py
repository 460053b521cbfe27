"""`powerhall-optimizer round`: one planning round, for a person, cron or a timer."""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from powerhall.hostlist import expand
from powerhall.jobs.readers.formats import JOB_FORMATS, format_titles, read_job_file
from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan
from powerhall.runtime.command_line import Commands, add_command, option_value
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.log import Log
from powerhall.runtime.signals import StopFlag
from powerhall.store import Store, open_store
from powerhall_optimizer.inputs.round_settings import RoundSettings, read_settings
from powerhall_optimizer.inputs.snapshot import SiteInputs
from powerhall_optimizer.planning.figures import Figures, figures, figures_of
from powerhall_optimizer.round.multi_site import run_multi_site_round
from powerhall_optimizer.round.request import RoundRequest, check_request, plan_horizon
from powerhall_optimizer.round.single_site import one_round_at_a_time, run_round

__all__ = ["add_parser"]

_EPILOG = """\
examples:
  powerhall-optimizer round --site site.toml --jobs jobs.csv --report report.html
  powerhall-optimizer round --site site.toml --store sqlite:///var/powerhall.db --seconds 30 --quiet
  powerhall-optimizer round --site site.toml --jobs jobs.csv --start 2026-07-01T00:00Z --horizon 48h --dry-run
  powerhall-optimizer round --site phx.toml --site fra.toml --jobs jobs.csv

SIGTERM ends the solving; the best verified plan so far is published. A second round on the same plan file is refused.
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands,
        "round",
        run,
        help="read, solve, verify and publish one plan",
        description="Reads site, queue, telemetry, weather and prices; plans; verifies the plan; publishes it.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--site",
        type=Path,
        required=True,
        action="append",
        help="site.toml; given several times, the sites are planned together",
    )
    parser.add_argument("--jobs", type=Path, help=f"queue: {format_titles()}")
    parser.add_argument("--jobs-format", choices=sorted(JOB_FORMATS), help="format of --jobs (default: detected)")
    parser.add_argument("--store", help="store URL: telemetry and queue come from it, the plan goes to it")
    parser.add_argument("--out", type=Path, help="plan file (default: plan.json, or none with --store)")
    parser.add_argument("--report", type=Path, help="write a self-contained HTML report")
    parser.add_argument("--settings", type=Path, help="TOML file with the round's settings")
    parser.add_argument("--start", help="now, as ISO 8601 or seconds since the epoch (default: the clock)")
    parser.add_argument("--horizon", default="24h", help="length of the plan (default: 24h)")
    parser.add_argument("--seconds", type=float, default=60.0, help="time to solve (default: 60)")
    parser.add_argument("--down", default="", help="nodes that cannot be used and draw nothing, as a host list")
    parser.add_argument(
        "--what-if",
        help='compare the plan with and without changes, such as "hall3.power=12MW,grid=-20%%"; publishes nothing',
    )
    parser.add_argument("--dry-run", action="store_true", help="plan and verify, publish nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")


def _refuse(option: str, value: object, allowed: str) -> Rejected:
    return Rejected.field("command line", f"--{option}", value, allowed)


def _request(args: argparse.Namespace, settings: RoundSettings, store: Store | None) -> RoundRequest:
    now_s, horizon = plan_horizon(args.start, args.horizon, settings.slot_s, _refuse)
    request = RoundRequest(
        sites=tuple(SiteInputs.read(path) for path in args.site),
        horizon=horizon,
        now_s=now_s,
        seconds=args.seconds,
        jobs=None if args.jobs is None else read_job_file(args.jobs, args.jobs_format),
        jobs_source=str(args.jobs),
        store=store,
        out=args.out or (None if args.store else Path("plan.json")),
        dry_run=args.dry_run or args.what_if is not None,
        down_nodes=option_value("--down", args.down, expand),
    )
    check_request(request, _refuse)
    return request


def _site_figures(plan: MultiSitePlan) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for part in plan.plans:
        come = figures(part)
        fields = {"plan_id": part.plan_id, "value": part.value, "bound": part.bound, "gap": part.gap}
        found[part.snapshot.site.name] = fields | {name: getattr(come, name) for name in come.__struct_fields__}
    return found


def _print_outcome(plan: Plan | MultiSitePlan, request: RoundRequest, as_json: bool) -> None:
    come = figures_of(plan)
    if as_json:
        fields = {"plan_id": plan.plan_id, "status": plan.status, "value": plan.value, "bound": plan.bound}
        fields |= {"gap": plan.gap, "verified": True, "solve_s": plan.solve_s}
        fields |= {name: getattr(come, name) for name in come.__struct_fields__}
        if isinstance(plan, MultiSitePlan):
            fields |= {"sites": _site_figures(plan)}
        sys.stdout.write(json.dumps(fields) + "\n")
        return
    where = "not published" if request.dry_run else str(request.out or "store")
    sys.stdout.write(
        f"{where}: {plan.status} plan {plan.plan_id[:12]}, verified: {come.jobs_running} jobs go on, "
        f"{come.jobs_started} start, {come.jobs_waiting} wait; gap {plan.gap:.2%}; "
        f"{come.energy_j / 3.6e9:.2f} MWh, {come.cost:.0f} USD\n"
    )
    for part in plan.plans if isinstance(plan, MultiSitePlan) else ():
        own = figures(part)
        sys.stdout.write(
            f"  {part.snapshot.site.name}: {own.jobs_running} go on, {own.jobs_started} start, {own.jobs_waiting} "
            f"wait; {own.energy_j / 3.6e9:.2f} MWh, {own.cost:.0f} USD\n"
        )
    sys.stdout.writelines(f"note: {note}\n" for note in plan.notes)


def _compare(base: Plan | MultiSitePlan, other: Plan | MultiSitePlan, change: str) -> None:
    """Print the effect of a change on the plan's figures, of all sites together and of each."""
    _compare_figures(figures_of(base), figures_of(other), change)
    if isinstance(base, MultiSitePlan) and isinstance(other, MultiSitePlan):
        for one, two in zip(base.plans, other.plans, strict=True):
            _compare_figures(figures(one), figures(two), f"at {one.snapshot.site.name}")


def _compare_figures(before: Figures, after: Figures, change: str) -> None:
    rows = [
        ("jobs that start", before.jobs_started, after.jobs_started),
        ("jobs that wait", before.jobs_waiting, after.jobs_waiting),
        ("GPU hours of work", before.work_gpu_s / 3600, after.work_gpu_s / 3600),
        ("energy, MWh", before.energy_j / 3.6e9, after.energy_j / 3.6e9),
        ("cost of energy, USD", before.cost, after.cost),
    ]
    sys.stdout.write(f"{'':24}{'as it is':>14}{'what if':>14}{'change':>14}   {change}\n")
    for name, one, two in rows:
        sys.stdout.write(f"{name:24}{one:14,.1f}{two:14,.1f}{two - one:+14,.1f}\n")


def _round(request: RoundRequest, settings: RoundSettings, stop: StopFlag, log: Log) -> Plan | MultiSitePlan:
    run_one = run_multi_site_round if len(request.sites) > 1 else run_round
    return run_one(request, settings, stop, log, int(time.time()))


def run(args: argparse.Namespace) -> int:
    """Run one round."""
    settings = read_settings(args.settings)
    store = None if args.store is None else open_store(args.store)
    with StopFlag() as stop:
        try:
            request = _request(args, settings, store)
            log = Log(quiet=args.quiet)
            with one_round_at_a_time(None if request.dry_run else request.out):
                plan = _round(request, settings, stop, log)
            if args.what_if is not None:
                base, plan = plan, _round(replace(request, what_if=args.what_if), settings, stop, log)
                _compare(base, plan, args.what_if)
        finally:
            if store is not None:
                store.close()
        if args.report is not None:
            from powerhall_optimizer.report.page import write_report

            write_report(plan, args.report)
        _print_outcome(plan, request, args.json)
    return EXIT_OK
