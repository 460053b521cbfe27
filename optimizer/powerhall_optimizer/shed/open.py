"""Open the targets of a shed: store, keys and ledger, scheduler and plan file."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.site.curtailment import parse_ramp
from powerhall.store import open_store
from powerhall_optimizer.leases.keys import read_site_key
from powerhall_optimizer.leases.open_ledger import open_ledger
from powerhall_optimizer.schedulers.registry import open_writer
from powerhall_optimizer.shed.shedder import Shedder

__all__ = ["ShedOptions", "open_shedder"]


@dataclass(frozen=True, slots=True)
class ShedOptions:
    """Options of the command line that name the targets of a shed."""

    store: str | None
    site_key: Path | None
    ledger: Path | None
    scheduler: str | None
    settings: Path | None
    out: Path | None
    ramp_down: str | None


def open_shedder(options: ShedOptions, plan: Plan) -> Shedder:
    """Open the named targets; an incomplete set of lease options, or no target at all, is refused."""
    leased = [options.store, options.site_key, options.ledger]
    if any(leased) and not all(leased):
        raise Rejected("shed: --store, --site-key and --ledger go together: all are needed to send leases")
    try:
        ramp = None if options.ramp_down is None else parse_ramp(options.ramp_down)
    except ValueError as error:
        raise Rejected.field("shed", "--ramp-down", options.ramp_down, str(error)) from None
    writer = None
    if options.scheduler:
        writer = open_writer(options.scheduler, options.settings, may_stop=True)  # rungs stop only preemptible jobs
    if not any(leased) and writer is None and options.out is None:
        raise Rejected(
            "shed: no store, scheduler or file is given: needs --store with keys, --scheduler or --out; or --dry-run"
        )
    key = read_site_key(options.site_key) if options.site_key else None
    store = open_store(options.store) if options.store else None
    ledger = None
    if options.ledger and key:
        site, log = plan.snapshot.site, Log()
        tell = partial(_tell, log)
        ledger = open_ledger(site, options.ledger, time.time(), tell, store=store, site_key=key)
    return Shedder(ledger, store, key, writer, options.out, ramp_w_per_s=ramp)


def _tell(log: Log, doubt: str) -> None:
    log.warning("lease_ledger", detail=doubt)
