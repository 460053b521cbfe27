"""`powerhall-optimizer bill`: who used how much energy over a period, what it cost, and how it adds up to the meter."""

import argparse
import contextlib
import json
import sys
import time
from datetime import tzinfo
from pathlib import Path

from powerhall.jobs.owners import read_owners
from powerhall.report.html_page import require_libraries
from powerhall.runtime.command_line import Commands, add_command, option_value
from powerhall.runtime.decode.numbers_in import whole
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.files import replace_file
from powerhall.site.site_file import read_site
from powerhall.store import existing_store
from powerhall.timeseries import parse_time
from powerhall_optimizer.billing.bill import LEVELS, make_bill
from powerhall_optimizer.billing.bill_days import days_of, last_days, write_day
from powerhall_optimizer.billing.bill_output import bill_csv, bill_data, bill_text
from powerhall_optimizer.billing.period import parse_period

__all__ = ["add_parser"]

_MOST_DAYS = 400
_MOST_S = _MOST_DAYS * 86_400.0

_EPILOG = """\
examples:
  powerhall-optimizer bill --site site.toml --store sqlite:///powerhall.db --month 2026-11 --by tenant
  powerhall-optimizer bill --site site.toml --store ... --from 2026-11-01 --to 2026-11-08 --by job --csv week.csv
  powerhall-optimizer bill --site site.toml --store ... --month 2026-11 --owners owners.csv --json
  powerhall-optimizer bill --site site.toml --store ... --days 2 --by tenant --write

Every line has its part of cooling, losses and water, by the PUE of the moment, and its price and CO2 of the moment.
Idle GPUs, energy that belongs to no job (unallocated) and silent nodes (assumed) are lines of their own, so that all
lines sum up to the meter. Gaps of the meter are named and nothing is billed in them.
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands,
        "bill",
        run,
        help="energy, cost, CO2 and water per job, user, project, tenant or hall",
        description="Splits what the meters of a period show among jobs, idle GPUs and the rest, from the store's "
        "roll-ups of five minutes and the agents' intervals of jobs.",
        epilog=_EPILOG,
    )
    parser.add_argument("--site", type=Path, required=True, help="site.toml")
    parser.add_argument("--store", required=True, help="store URL")
    parser.add_argument("--month", help="a month of the site's calendar, such as 2026-11; instead of --from and --to")
    parser.add_argument("--from", dest="start", help="start, as ISO 8601 (the site's zone) or seconds since the epoch")
    parser.add_argument("--to", dest="end", help="end, as --from; the end itself is not billed")
    parser.add_argument(
        "--days", metavar="N", help="the last N days of the site's calendar, today included; instead of --from and --to"
    )
    parser.add_argument("--by", choices=LEVELS, default="job", help="what a line is (default: job)")
    parser.add_argument(
        "--owners", type=Path, metavar="FILE", help="CSV of projects and tenants (default: billing.owners of the site)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the bill as CSV too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the bill as one self-contained HTML page too")
    parser.add_argument("--json", action="store_true", help="print the bill as JSON")
    parser.add_argument(
        "--write", action="store_true", help="write every day that begins in the period into the store, for dashboards"
    )


def run(args: argparse.Namespace) -> int:
    """Print the bill of a period."""
    if args.html is not None:
        require_libraries("--html")
    site, planning = read_site(args.site)
    now_s = time.time()
    span = _last_days(args, planning.zone, now_s) if args.days is not None else bill_span(args, planning.zone)
    owners = read_owners(args.owners or planning.billing.owners)
    with contextlib.closing(existing_store(args.store)) as store:
        bill = make_bill(store, site, planning, span, now_s, owners=owners)
        for day in days_of(span, planning.zone, now_s) if args.write else ():
            write_day(store, make_bill(store, site, planning, day, now_s, owners=owners))
    if args.csv is not None:
        replace_file(args.csv, bill_csv(bill, args.by).encode())
    if args.html is not None:
        from powerhall_optimizer.billing.bill_page import bill_html

        replace_file(args.html, bill_html(bill, args.by, planning.zone).encode())
    if args.json:
        sys.stdout.write(json.dumps(bill_data(bill, args.by, planning.zone), indent=2) + "\n")
    else:
        sys.stdout.write(bill_text(bill, args.by, planning.zone))
    return EXIT_OK


def _last_days(args: argparse.Namespace, zone: tzinfo | None, now_s: float) -> tuple[float, float]:
    """Return the period of --days: from the start of the first day to now."""
    if any(given is not None for given in (args.month, args.start, args.end)):
        raise Rejected.field("command line", "--days", args.days, "must stand without --month, --from and --to")
    days = option_value("--days", args.days, whole)
    if not 1 <= days <= _MOST_DAYS:
        raise Rejected.field("command line", "--days", args.days, f"must be from 1 to {_MOST_DAYS}")
    return last_days(days, zone, now_s)[0], now_s


def bill_span(args: argparse.Namespace, zone: tzinfo | None) -> tuple[float, float]:
    """Return the period of the options --month, or --from and --to, in s since the epoch."""
    if args.month is not None:
        if args.start is not None or args.end is not None:
            raise Rejected.field("command line", "--month", args.month, "must stand without --from and --to")
        return option_value("--month", args.month, lambda text: parse_period(text, zone))
    if args.start is None or args.end is None:
        raise Rejected.field("command line", "--from", args.start, "must be given with --to, or --month instead")
    start_s = option_value("--from", args.start, lambda text: parse_time(text, zone))
    end_s = option_value("--to", args.end, lambda text: parse_time(text, zone))
    if not 0 <= start_s < end_s <= start_s + _MOST_S:
        raise Rejected.field("command line", "--to", args.end, "must be after --from, by 400 days at most")
    return start_s, end_s
