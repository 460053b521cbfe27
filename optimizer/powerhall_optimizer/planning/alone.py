"""What a round says of the changes that would start its waiting jobs: only what holds alone, and was checked so.

It is said of the first few jobs, on sites where a check is cheap; `explain` plans again and says more. All others keep
their plain reason.
"""

import msgspec

from powerhall.plan.plan import Plan, Waiting
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_optimizer.physics.site_conditions import time_text
from powerhall_optimizer.planning.changes import Levers

__all__ = ["with_what_ifs"]

_MOST_TOLD = 5
_MOST_JOBS = 300
"""Jobs of the queue, at most."""
_MOST_CELLS = 50_000
"""Racks times slots of a site, at most."""
_CODES = ("power", "cooling", "placement", "deadline")
"""Codes of jobs that a change of a limit or of their own fields may start."""


def with_what_ifs(plan: Plan, log: Log) -> Plan:
    """Return a plan whose waiting jobs say what would start them alone; a fault here costs no plan."""
    s = plan.snapshot
    chosen = [entry.job_id for entry in plan.waiting if entry.code in _CODES][:_MOST_TOLD]
    large = len(s.jobs) > _MOST_JOBS or sum(1 for _ in s.site.racks()) * s.slots > _MOST_CELLS
    if large or not chosen or s.starts_held:
        return plan
    try:
        levers = Levers(plan)
        waiting = tuple(_told(levers, entry) if entry.job_id in chosen else entry for entry in plan.waiting)
    except (PowerhallError, LookupError, ArithmeticError, ValueError) as error:
        log.error("stage_failed", stage="explain", reason=f"{type(error).__name__}: {error}")
        return plan
    return msgspec.structs.replace(plan, waiting=waiting)


def _told(levers: Levers, entry: Waiting) -> Waiting:
    texts = tuple(
        f"alone, at {time_text(lever.alone_s)} if {lever.changes[0].text}"
        for lever in levers.of(entry.job_id)
        if lever.alone_s is not None
    )
    return msgspec.structs.replace(entry, what_if=texts)
