"""`powerhall-optimizer rollup`: the service that writes roll-ups, Gantt rows, and events of budget and plan."""

import argparse
import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from powerhall.runtime.command_line import Commands, add_command, option_value
from powerhall.runtime.errors import PowerhallError, Rejected, Retryable
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.log import Log
from powerhall.runtime.signals import ServiceSignals
from powerhall.site.site_file import read_site
from powerhall.store import open_store
from powerhall.store.sqlite import SqliteStore
from powerhall.timeseries import parse_time
from powerhall.units import parse_span
from powerhall_optimizer.rollup.readings import BUCKET_S
from powerhall_optimizer.rollup.rollup_cycle import Rollup

__all__ = ["add_parser"]

_STRETCH_S = 600
_REREAD_S = 60.0
_SETTLE_S = 3.0
"""A bucket is first computed this long after its end, when most agents have delivered."""
_CATCH_UP_S = 900.0
"""A hall's store that was silent is rolled up anew this long after it answers: its agents have sent their spools."""

_EPILOG = """\
examples:
  powerhall-optimizer rollup --site site.toml --store sqlite:///powerhall.db
  powerhall-optimizer rollup --site site.toml --store 'influxdb://tsdb:8086/power?token_file=...' --hall hall3
  powerhall-optimizer rollup --site site.toml --store ... --since 2026-07-01T00:00Z --until 2026-07-02T00:00Z

For large sites run one service per hall (--hall) and one for the site alone (--site-only). Every cycle computes
the last minutes anew (--late), so that late readings count; computing twice changes nothing.
"""


def add_parser(commands: Commands) -> None:
    """Add the sub-command."""
    parser = add_command(
        commands,
        "rollup",
        run,
        help="roll GPU readings up into racks, halls and the site, every ten seconds",
        description="Writes rack_10s, hall_10s and site_10s, the same over five minutes (rack_5m, ...), the newest "
        "plan's rows of the Gantt chart, and events where a budget changes or a new plan moves jobs.",
        epilog=_EPILOG,
    )
    parser.add_argument("--site", type=Path, required=True, help="site.toml")
    parser.add_argument("--store", required=True, help="store URL")
    parser.add_argument("--hall", action="append", default=[], help="only this hall, without the site; repeatable")
    parser.add_argument(
        "--site-only", action="store_true", help="only the site (from its halls), Gantt rows and events"
    )
    parser.add_argument("--late", default="2 min", help="how far back each cycle computes (default: 2 min)")
    parser.add_argument(
        "--stale-after", default="30 s", help="a node without readings for longer counts at its maximum (default: 30 s)"
    )
    parser.add_argument("--since", help="first compute from this time on, as ISO 8601 or seconds since the epoch")
    parser.add_argument("--until", help="compute up to this time and exit; with --since, for a range in the past")
    parser.add_argument("--once", action="store_true", help="compute up to now and exit")
    parser.add_argument("--prune", action="store_true", help="delete points past their retention (sqlite only)")
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM, or once; a busy store is tried again at the next cycle."""
    site, _ = read_site(args.site)
    names = [hall.zone for hall in site.halls]
    for name in args.hall:
        if name not in names:
            raise Rejected.field("rollup", "--hall", name, f"must be one of {', '.join(names)}")
    halls = () if args.site_only else tuple(args.hall or names)
    late_s = option_value("--late", args.late, parse_span)
    stale_after_s = int(option_value("--stale-after", args.stale_after, parse_span))
    since_s = option_value("--since", args.since, parse_time) if args.since else None
    until_s = option_value("--until", args.until, parse_time) if args.until else None
    store = open_store(args.store)
    pruned = store if args.prune and isinstance(store, SqliteStore) else None
    if args.prune and pruned is None:
        raise Rejected.field("rollup", "--prune", args.store, "is for sqlite stores; InfluxDB has its own retention")
    rollup = Rollup(store, site, halls, with_site=not args.hall or args.site_only, stale_after_s=stale_after_s)
    service = _Service(rollup, Log(quiet=args.quiet), late_s, pruned, args.site)
    with contextlib.closing(store), service.signals:
        if until_s is not None:
            service.stretch(until_s - late_s if since_s is None else since_s, until_s)
        else:
            service.loop(since_s, once=args.once)
    return EXIT_OK


@dataclass(slots=True)
class _Service:
    """The roll-up in a loop; `pruned` is the store that points past their retention are deleted from, once an hour."""

    rollup: Rollup
    log: Log
    late_s: float
    pruned: SqliteStore | None
    site_file: Path | None = None
    signals: ServiceSignals = field(default_factory=ServiceSignals)
    _prune_s: float = 0.0
    _silent_from_s: float | None = None
    _silent_until_s: float = 0.0
    _read_s: float = 0.0

    def stretch(self, start_s: float, end_s: float) -> float:
        """Compute a time range in pieces; return the end that was reached."""
        start_s, end_s = _floor(start_s), _floor(end_s)
        while start_s < end_s and not self.signals.stopped:
            until_s = min(end_s, start_s + _STRETCH_S)
            points = self.rollup.run(start_s, until_s)
            for hall, why in self.rollup.silent.items():
                self.log.warning("hall_silent", hall=hall, reason=why)
            self.log.info("rollup", points=points, start_s=int(start_s), seconds=int(until_s - start_s))
            start_s = until_s
        return start_s

    def loop(self, since_s: float | None, *, once: bool) -> None:
        """Compute up to now at every bucket's end until stopped; a busy store causes delays, not gaps."""
        done_s = since_s
        while not self.signals.stopped:
            end_s = _floor(time.time() - _SETTLE_S)
            self.reread(time.time())
            try:
                start_s = end_s - self.late_s if done_s is None else min(done_s, end_s - self.late_s)
                done_s = self.stretch(self.after_silence(start_s, end_s), end_s)
                self.prune(time.time())
            except Retryable as error:
                if once:
                    raise
                self.log.warning("rollup_delayed", reason=error)
            if once:
                return
            self.signals.wait(BUCKET_S - (time.time() - _SETTLE_S) % BUCKET_S)

    def after_silence(self, start_s: float, end_s: float) -> float:
        """Return where to begin: at the beginning of a hall's silence, once its store has answered for a while."""
        if self.rollup.silent:
            self._silent_from_s = start_s if self._silent_from_s is None else min(start_s, self._silent_from_s)
            self._silent_until_s = end_s
        elif self._silent_from_s is not None and end_s >= self._silent_until_s + _CATCH_UP_S:
            start_s, self._silent_from_s = min(start_s, self._silent_from_s), None
        return start_s

    def reread(self, now_s: float) -> None:
        """Read the site file once a minute, for changed budgets; a refused file changes nothing."""
        if self.site_file is None or now_s < self._read_s:
            return
        if self._read_s:
            try:
                site, _ = read_site(self.site_file)
                for hall in self.rollup.halls:
                    site.hall(hall)
            except (PowerhallError, KeyError) as error:
                self.log.warning("site_refused", reason=error)
            else:
                self.rollup.site = site
        self._read_s = now_s + _REREAD_S

    def prune(self, now_s: float) -> None:
        """Delete points past their retention, once an hour."""
        if self.pruned is not None and now_s >= self._prune_s:
            self._prune_s = now_s + 3600
            self.log.info("prune", points=self.pruned.prune(now_s))


def _floor(time_s: float) -> float:
    return time_s // BUCKET_S * BUCKET_S
