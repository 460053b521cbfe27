"""`powerhall-optimizer round`: one planning round, for a person, cron or a timer."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from powerhall.forecasts.local_time import parse_zone_or_offset
from powerhall.hostlist import expand
from powerhall.jobs.left_out import JobList
from powerhall.jobs.readers.formats import JOB_FORMATS, format_titles, read_job_file, read_queue_file
from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Plan
from powerhall.runtime.command_line import Commands, add_command, option_value
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.log import Log
from powerhall.runtime.signals import StopFlag
from powerhall.store import Store, existing_store, open_store
from powerhall.units import parse_span
from powerhall_optimizer.archive.keep import Archive
from powerhall_optimizer.archive.shelf import FolderShelf, StoreShelf
from powerhall_optimizer.cluster import check_address, is_open_to_others
from powerhall_optimizer.inputs.round_settings import RoundSettings, read_settings
from powerhall_optimizer.inputs.snapshot import SiteInputs
from powerhall_optimizer.leases.keys import read_site_key
from powerhall_optimizer.planning.difference import interval
from powerhall_optimizer.planning.figures import Figures, figures, figures_of
from powerhall_optimizer.planning.round_clock import RoundClock
from powerhall_optimizer.round.multi_site import run_multi_site_round
from powerhall_optimizer.round.publish import multi_site_key
from powerhall_optimizer.round.request import RoundRequest, check_request, plan_horizon
from powerhall_optimizer.round.single_site import one_round_at_a_time, run_round
from powerhall_optimizer.round.what_if import Comparison, compare

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
    parser.add_argument(
        "--jobs-timezone",
        help="time zone or offset of times without one in --jobs (default: the site's timezone, else UTC)",
    )
    parser.add_argument("--strict", action="store_true", help="refuse the round where a job cannot be planned with")
    parser.add_argument("--store", help="store URL: telemetry and queue come from it, the plan goes to it")
    parser.add_argument("--out", type=Path, help="plan file (default: plan.json, or none with --store)")
    parser.add_argument("--report", type=Path, help="write a self-contained HTML report")
    parser.add_argument(
        "--archive", metavar="DIR", help="keep each round there for `audit`; 'store' keeps it in the store"
    )
    parser.add_argument("--site-key", type=Path, help="file with the site key, which signs what --archive keeps")
    parser.add_argument("--settings", type=Path, help="TOML file with the round's settings")
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler on whose workers the jobs of large queues are priced, such as tcp://host:8786",
    )
    parser.add_argument("--start", help="now, as ISO 8601 or seconds since the epoch (default: the clock)")
    parser.add_argument("--horizon", default="24h", help="length of the plan (default: 24h)")
    parser.add_argument(
        "--seconds", type=parse_span, default=60.0, metavar="SPAN", help="time of the whole round (default: 60s)"
    )
    parser.add_argument("--down", default="", help="nodes that take nothing new, as a host list; what runs there runs")
    parser.add_argument("--off", default="", help="nodes that are powered off: they draw nothing, as a host list")
    parser.add_argument(
        "--what-if",
        help='plan with and without changes, such as "hall3.power=12MW,grid=-20%%", in --seconds each, and say what is '
        "proven of the difference; publishes nothing",
    )
    parser.add_argument("--dry-run", action="store_true", help="plan and verify, publish nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")


def _refuse(option: str, value: object, allowed: str) -> Rejected:
    return Rejected.field("command line", f"--{option}", value, allowed)


def _queue(args: argparse.Namespace, sites: Sequence[SiteInputs]) -> JobList:
    own = {site.planning.timezone: site.planning.zone for site in sites}
    zone = next(iter(own.values())) if len(own) == 1 else None
    if args.jobs_timezone is not None:
        zone = option_value("--jobs-timezone", args.jobs_timezone, parse_zone_or_offset)
    if args.strict:
        return JobList(read_job_file(args.jobs, args.jobs_format, zone))
    return read_queue_file(args.jobs, args.jobs_format, zone)


def _request(args: argparse.Namespace, settings: RoundSettings, store: Store | None, clock: RoundClock) -> RoundRequest:
    now_s, horizon = plan_horizon(args.start, args.horizon, settings.slot_s, _refuse)
    sites = tuple(SiteInputs.read(path) for path in args.site)
    queue = None if args.jobs is None else _queue(args, sites)
    request = RoundRequest(
        sites=sites,
        horizon=horizon,
        now_s=now_s,
        seconds=args.seconds,
        jobs=None if queue is None else queue.jobs,
        left_out=() if queue is None else queue.left_out,
        queue_notes=() if queue is None else queue.notes,
        strict=args.strict,
        jobs_source=str(args.jobs),
        store=store,
        out=args.out or (None if args.store else Path("plan.json")),
        dry_run=args.dry_run or args.what_if is not None,
        down_nodes=option_value("--down", args.down, expand),
        off_nodes=option_value("--off", args.off, expand),
        clock=clock,
        archive=_archive(args, sites, settings, store),
    )
    check_request(request, _refuse)
    return request


def _archive(
    args: argparse.Namespace, sites: Sequence[SiteInputs], settings: RoundSettings, store: Store | None
) -> Archive | None:
    if args.archive is None:
        if args.site_key is not None:
            raise _refuse("site-key", args.site_key, "signs what --archive keeps: needs --archive")
        return None
    key = None if args.site_key is None else read_site_key(args.site_key)
    if args.archive == "store":
        if store is None:
            raise _refuse("archive", args.archive, "needs --store")
        return Archive(StoreShelf(store, multi_site_key(inputs.site.name for inputs in sites)), key)
    return Archive(FolderShelf(Path(args.archive)), key, 1e6 * settings.archive_mb)


def _site_figures(plan: MultiSitePlan) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for part in plan.plans:
        come = figures(part)
        fields = {"plan_id": part.plan_id, "value": part.value, "bound": part.bound, "gap": part.gap}
        found[part.snapshot.site.name] = fields | {name: getattr(come, name) for name in come.__struct_fields__}
    return found


def _print_outcome(
    plan: Plan | MultiSitePlan, request: RoundRequest, as_json: bool, found: Comparison | None = None
) -> None:
    come = figures_of(plan)
    if as_json:
        fields = {"plan_id": plan.plan_id, "status": plan.status, "value": plan.value, "bound": plan.bound}
        fields |= {"gap": plan.gap, "verified": True, "solve_s": plan.solve_s}
        fields |= {"cut_short": plan.cut_short}
        fields |= {name: getattr(come, name) for name in come.__struct_fields__}
        if isinstance(plan, MultiSitePlan):
            fields |= {"sites": _site_figures(plan)}
        if plan.changes is not None:
            fields |= {"changes": msgspec.structs.asdict(plan.changes)}
        if found is not None:
            fields |= {"what_if": _what_if_fields(found)}
        sys.stdout.write(json.dumps(fields) + "\n")
        return
    left_out = f", {come.jobs_left_out} left out" if come.jobs_left_out else ""
    where = "not published" if request.dry_run else str(request.out or "store")
    sys.stdout.write(
        f"{where}: {plan.status} plan {plan.plan_id[:12]}, verified: {come.jobs_running} jobs go on, "
        f"{come.jobs_started} start, {come.jobs_waiting} wait{left_out}; gap {plan.gap:.2%}; "
        f"{come.energy_j / 3.6e9:.2f} MWh, {come.cost:.0f} USD\n"
    )
    for part in plan.plans if isinstance(plan, MultiSitePlan) else ():
        own = figures(part)
        sys.stdout.write(
            f"  {part.snapshot.site.name}: {own.jobs_running} go on, {own.jobs_started} start, {own.jobs_waiting} "
            f"wait; {own.energy_j / 3.6e9:.2f} MWh, {own.cost:.0f} USD\n"
        )
    sys.stdout.writelines(f"note: {note}\n" for note in plan.notes)


def _compare(found: Comparison) -> None:
    """Print the effect of a change: what is proven of the value, then the figures of the two plans."""
    base, other = found.base, found.other
    one, two = interval(base), interval(other)
    rows = [
        ("value of the plan, USD", one.value_usd, two.value_usd),
        ("best value at most, USD", one.bound_usd, two.bound_usd),
        ("gap, %", 100 * base.gap, 100 * other.gap),
    ]
    _print_rows(rows, found.change)
    _print_rows(_figure_rows(figures_of(base), figures_of(other)))
    sys.stdout.write(f"{found.difference.statement}\n")
    if isinstance(base, MultiSitePlan) and isinstance(other, MultiSitePlan):
        for before, after in zip(base.plans, other.plans, strict=True):
            _print_rows(_figure_rows(figures(before), figures(after)), f"at {before.snapshot.site.name}")


def _figure_rows(before: Figures, after: Figures) -> list[tuple[str, float, float]]:
    return [
        ("jobs that start", before.jobs_started, after.jobs_started),
        ("jobs that wait", before.jobs_waiting, after.jobs_waiting),
        ("GPU hours of work", before.work_gpu_s / 3600, after.work_gpu_s / 3600),
        ("energy, MWh", before.energy_j / 3.6e9, after.energy_j / 3.6e9),
        ("cost of energy, USD", before.cost, after.cost),
    ]


def _print_rows(rows: list[tuple[str, float, float]], title: str = "") -> None:
    if title:
        sys.stdout.write(f"{'':24}{'as it is':>14}{'what if':>14}{'change':>14}   {title}\n")
    for name, one, two in rows:
        digits = 2 if name.startswith("gap") else 1
        sys.stdout.write(f"{name:24}{one:14,.{digits}f}{two:14,.{digits}f}{two - one:+14,.{digits}f}\n")


def _column(plan: Plan | MultiSitePlan) -> dict[str, object]:
    come, best = figures_of(plan), interval(plan)
    fields: dict[str, object] = {"plan_id": plan.plan_id, "status": plan.status, "verified": True}
    fields |= {"value": plan.value, "bound": plan.bound, "gap": plan.gap}
    fields |= {"value_usd": best.value_usd, "bound_usd": best.bound_usd, "cut_short": plan.cut_short}
    return fields | {name: getattr(come, name) for name in come.__struct_fields__}


def _what_if_fields(found: Comparison) -> dict[str, object]:
    about = found.difference
    return {
        "change": found.change,
        "as_it_is": _column(found.base),
        "what_if": _column(found.other),
        "difference_usd": [about.low_usd, about.high_usd],
        "proven": about.proven or None,
        "limits": about.direction,
        "statement": about.statement,
    }


def _round(request: RoundRequest, settings: RoundSettings, stop: StopFlag, log: Log) -> Plan | MultiSitePlan:
    run_one = run_multi_site_round if len(request.sites) > 1 else run_round
    return run_one(request, settings, stop, log, int(time.time()))


def _open(url: str, *, has_queue: bool) -> Store:
    """Open the store; one that is to hold the queue must be there."""
    return existing_store(url, "run `powerhall-optimizer queue --store` first") if has_queue else open_store(url)


def run(args: argparse.Namespace) -> int:
    """Run one round."""
    alone = Path(sys.argv[0]).name == "powerhall-optimizer"  # not called from another program
    clock = RoundClock.of_process(args.seconds) if alone else RoundClock.start(args.seconds)
    settings = read_settings(args.settings)
    if args.scheduler is not None:
        settings = msgspec.structs.replace(settings, scheduler=args.scheduler)
    if settings.scheduler:
        check_address(settings.scheduler)
    store = None if args.store is None else _open(args.store, has_queue=args.jobs is None)
    with StopFlag() as stop:
        try:
            request = _request(args, settings, store, clock)
            log = Log(quiet=args.quiet)
            if is_open_to_others(settings.scheduler):
                log.warning(
                    "cluster_without_tls", address=settings.scheduler, hint="whoever reaches it runs code there"
                )
            for note in request.queue_notes:
                log.warning("queue_note", file=request.jobs_source, detail=note)
            found: Comparison | None = None
            if args.what_if is not None:
                found = compare(request, args.what_if, settings, stop, log, int(time.time()))
                plan = found.other
            else:
                with one_round_at_a_time(None if request.dry_run else request.out):
                    plan = _round(request, settings, stop, log)
        finally:
            if store is not None:
                store.close()
        if args.report is not None:
            from powerhall_optimizer.report.page import write_report

            write_report(plan, args.report)
        if found is not None and not args.json:
            _compare(found)
        _print_outcome(plan, request, args.json, found)
    return EXIT_OK
