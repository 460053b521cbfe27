"""The work of `lease`: check clocks, ledger and plan, then grant until the nodes have settled."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.log import Log
from powerhall.site.curtailment import Event
from powerhall.store import Store
from powerhall_optimizer.leases import texts
from powerhall_optimizer.leases.clocks import Clocks, Host, read_clocks
from powerhall_optimizer.leases.grant_cycle import GrantCycle
from powerhall_optimizer.leases.lease_points import ROUND_FIELDS, publish_round
from powerhall_optimizer.leases.ledger_file import PlanMark, clock_mark
from powerhall_optimizer.leases.open_ledger import open_ledger

__all__ = ["GrantOptions", "grant"]


@dataclass(frozen=True, slots=True)
class GrantOptions:
    """Options of the command line: the ledger, how long leases last at most, and how long to wait for the nodes."""

    ledger: Path
    span_s: float
    settle_s: float
    is_first: bool = False
    dry_run: bool = False
    clock: Callable[[], float] = lambda: time.time()  # noqa: PLW0108 - found when called


def grant(
    plan: Plan, key: bytes, store: Store | None, options: GrantOptions, *, events: Sequence[Event], log: Log
) -> dict[str, object]:
    """Grant and publish leases of a plan; return the figures.

    Leases begin at the earliest time that it may be, and have to reach beyond the latest: clocks too far apart, and a
    plan that the ledger refuses, raise Rejected, and the ledger stays as it is.
    """
    site, doubts = plan.snapshot.site, list[str]()

    def look() -> Clocks:
        return read_clocks(Host.now(options.clock()), clock_mark(options.ledger, key), store)

    def tell(doubt: str) -> None:
        doubts.append(doubt)
        log.warning("lease_ledger", detail=doubt)

    clocks = look()
    for alarm in clocks.alarms:
        log.warning("lease_clock", detail=alarm)
    if clocks.low_s + options.span_s <= clocks.high_s:
        publish_round(store, site.name, clocks.low_s, {"refused": 1.0, "clock_ahead_s": clocks.ahead_s}, log)
        raise Rejected(texts.nothing_to_grant(clocks.alarms))
    ledger = open_ledger(
        site,
        options.ledger,
        clocks.low_s,
        tell,
        store=store,
        site_key=key,
        is_first=options.is_first,
        dry_run=options.dry_run,
    )
    mark = PlanMark(plan.plan_id, plan.created_s, plan.snapshot.start_s)
    ledger.admit(mark, site.name, clocks.low_s, clocks.high_s)
    if clocks.is_believed:
        ledger.mark_clock(clocks.host.mark, clocks.low_s)
    figures = _rounds(GrantCycle(plan, ledger, key, store, events), clocks, options)
    told = {
        name: float(value) for name, value in figures.items() if name in ROUND_FIELDS and isinstance(value, int | float)
    }
    told |= {"refused": 0.0, "clock_ahead_s": clocks.ahead_s, "ledger_doubted": float(bool(doubts))}
    publish_round(store, site.name, clocks.low_s, told, log)
    if doubts or clocks.alarms:
        figures["note"] = "; ".join([*doubts, *clocks.alarms, *([str(figures["note"])] if "note" in figures else [])])
    return figures


def _rounds(cycle: GrantCycle, clocks: Clocks, options: GrantOptions) -> dict[str, object]:
    """Grant once, and again as nodes confirm, until all are served or the time to settle is over."""
    behind_s = clocks.host.wall_s - clocks.low_s

    def now_s() -> float:
        return options.clock() - behind_s

    began_s = now_s()
    figures = cycle.run(began_s, began_s + options.span_s)
    while cycle.store is not None and figures["short"] and now_s() < began_s + options.settle_s:
        time.sleep(min(1.0, options.settle_s))
        if cycle.acknowledge(now_s()):
            figures |= cycle.run(now_s(), now_s() + options.span_s)
    return figures
