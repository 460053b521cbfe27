"""`powerhall-optimizer lease` (grant and publish leases of a plan) and `node-key` (derive a node's key)."""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

from powerhall.lease import node_key
from powerhall.runtime.command_line import Commands, add_command
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.log import Log
from powerhall.site.curtailment import read_events
from powerhall.site.site_file import read_site
from powerhall.store import open_store
from powerhall.units import parse_duration
from powerhall_optimizer.leases.grant import GrantOptions, grant
from powerhall_optimizer.leases.keys import read_site_key
from powerhall_optimizer.leases.newest_plan import refuse_older_than_stored, refuse_replaced
from powerhall_optimizer.leases.plan_in_force import checked_plan
from powerhall_optimizer.leases.site_limits import within_site

__all__ = ["add_parser"]

_LEASE = """Grants power-cap leases for the jobs that a verified plan runs now, within every budget whatever happens to
leases in transit, signs each for its node, and writes them to the store. Run it after every round; leases must outlive
two rounds, so that one lost round changes nothing. Caps that nodes confirmed free their budget first; with --settle,
budget that nodes confirm meanwhile is granted again at once.

No lease reaches beyond the plan's horizon, one hour, or a known fall of a budget that leaves no room for its cap. A
plan older than the last one that a round wrote (beside it, under whatever name, or to the store) or that leases were
granted for, or of another site, is refused; run a round then. Where the ledger was lost, is damaged or too old, every
node counts at its highest power until it confirms a new lease, or until the old ones have run out; a node whose capper
has never confirmed a lease does until it confirms its first.

With --site the lower of the plan's and the site file's limit counts for every zone at every time, so that whoever can
write the plan cannot raise a budget; a plan of other nodes, plants or feeds than the file has is refused.

examples:
  powerhall-optimizer lease --plan plan.json --store sqlite:///power.db --site-key site.key --ledger ledger.json
  powerhall-optimizer lease --plan plan.json --store URL --site-key site.key --ledger ledger.json --settle 10s
  powerhall-optimizer lease --plan plan.json --store URL --site-key site.key --ledger ledger.json --for 15min --dry-run
"""
_KEY = """Derives the key of one node from the site key and writes it to a file of mode 0600 for that node's capper.

examples:
  head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' > site.key
  powerhall-optimizer node-key --site-key site.key --node gn01 --out gn01.key
"""


def add_parser(commands: Commands) -> None:
    """Add both sub-commands."""
    lease = add_command(commands, "lease", _lease, help="grant power-cap leases of a plan", description=_LEASE)
    lease.add_argument("--plan", type=Path, default=Path("plan.json"), help="verified plan (default: plan.json)")
    lease.add_argument(
        "--site",
        type=Path,
        help="site file whose limits hold beside the plan's: no plan raises a budget (default: the plan's alone)",
    )
    lease.add_argument("--store", required=True, metavar="URL", help="store to write the nodes' leases to")
    add_lease_options(lease)
    lease.add_argument("--for", dest="span", default="15 min", help="validity of the leases (default: 15 min)")
    lease.add_argument(
        "--settle",
        default="0 s",
        help="where nodes got less than they request, wait this long for confirmations and grant again (default: 0 s)",
    )
    lease.add_argument(
        "--events",
        type=Path,
        help="CSV or JSON of events, as in site.toml, that take effect at once; a missing file has none",
    )
    lease.add_argument(
        "--first",
        action="store_true",
        help="begin a ledger where none is: no lease of this site is in force, as on a new site",
    )
    lease.add_argument("--json", action="store_true", help="the result is printed as JSON in any case")
    lease.add_argument("--dry-run", action="store_true", help="compute the figures, grant nothing")
    key = add_command(commands, "node-key", _node_key, help="derive a node's lease key", description=_KEY)
    key.add_argument("--site-key", type=Path, required=True, help="file with the site key")
    key.add_argument("--node", required=True, help="name of the node, as the plan names it")
    key.add_argument("--out", type=Path, required=True, help="file to write the node key to")


def add_lease_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that grants leases."""
    parser.add_argument("--site-key", type=Path, required=True, help="file with the site key, 64 hex digits or more")
    parser.add_argument("--ledger", type=Path, required=True, help="ledger of caps that nodes may still hold")


def _lease(args: argparse.Namespace) -> int:
    span_s, settle_s = _span(args.span, "--for", 1.0), _span(args.settle, "--settle", 0.0)
    plan = checked_plan(args.plan, time.time())
    log, told = Log(), list[str]()

    def tell(line: str) -> None:
        told.append(line)
        log.warning("lease_plan", detail=line)

    refuse_replaced(plan, args.plan, time.time(), tell, keep=args.dry_run)
    if args.site is not None:
        plan = within_site(plan, read_site(args.site)[0], str(args.site))
    site = plan.snapshot.site
    key = read_site_key(args.site_key)
    has_events = args.events is not None and args.events.exists()
    events = read_events(args.events, site.name, plan.snapshot.zone) if has_events else ()
    store = None if args.dry_run else open_store(args.store)
    try:
        if store is not None:
            refuse_older_than_stored(plan, args.plan, store, time.time(), tell)
        options = GrantOptions(args.ledger, span_s, settle_s, is_first=args.first, dry_run=args.dry_run)
        figures = grant(plan, key, store, options, events=events, log=log)
    finally:
        if store is not None:
            store.close()
    if told:
        figures["note"] = "; ".join([*told, *([str(figures["note"])] if "note" in figures else [])])
    sys.stdout.write(json.dumps(figures | {"dry_run": args.dry_run}) + "\n")
    return EXIT_OK


def _span(text: str, option: str, least_s: float) -> float:
    """Read a duration; one without meaning is refused, one beyond the longest lease is cut later, with a line."""
    try:
        span_s = parse_duration(text)
    except ValueError as error:
        raise Rejected.field("lease", option, text, str(error)) from None
    if not math.isfinite(span_s) or span_s < least_s:
        raise Rejected.field("lease", option, text, f"must be at least {least_s:g} s and finite, such as '15 min'")
    return span_s


def _node_key(args: argparse.Namespace) -> int:
    key = node_key(read_site_key(args.site_key), args.node)
    try:
        handle = os.open(args.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"{args.out}: cannot write: {error.strerror}") from None
    with os.fdopen(handle, "w") as file:
        file.write(key.hex() + "\n")
    return EXIT_OK
