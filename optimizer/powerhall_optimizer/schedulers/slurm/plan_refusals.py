"""Plans that are not written: of another site, or older than the newest that Slurm has marks of."""

import math
from collections.abc import Iterable

from powerhall.hostlist import expand
from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall_optimizer.schedulers.slurm.ownership_mark import OwnershipMark, one_word, parse_mark
from powerhall_optimizer.schedulers.slurm.records import Record
from powerhall_optimizer.schedulers.slurm.reservations import Curtailment, writer_of

__all__ = ["refuse_foreign"]


_SKEW_S = 60.0


def refuse_foreign(
    plan: Plan,
    known: Iterable[str],
    records: Iterable[Record],
    reserved: Iterable[Curtailment],
    *,
    now_s: float = math.inf,
    recent_s: float = 600.0,
) -> None:
    """Raise Rejected for a plan of a site whose nodes Slurm does not have, or that another site's plan has in hand.

    Also for one that is older than the newest that marked a job or made a reservation. `known` are Slurm's nodes.
    Times that lie after `now_s` were written by a clock that was ahead: they bar no plan of the last `recent_s`.
    """
    site = plan.snapshot.site
    here, name = SiteIndex.of(site).rack_of.keys(), one_word(site.name)
    if not set(known) & here:
        raise Rejected.field("plan", "site", site.name, "must be a site whose nodes this Slurm cluster has")
    _, reserved_name = writer_of(plan)
    reserved = list(reserved)
    marks = [(record, mark) for record in records if (mark := parse_mark(record.admin_comment))]
    others = {one.site for one in reserved if one.site not in ("", reserved_name) and not one.is_note}
    for record, mark in marks:
        if mark.site not in ("", name) and record.state == "PENDING" and _nodes(mark) & here:
            others.add(mark.site)
    if others:
        allowed = f"a plan of site {min(others)!r} has nodes or licences of it; schedule --release gives them back"
        raise Rejected.field("plan", "site", site.name, allowed)
    times = [mark.at_s for _, mark in marks if mark.site in ("", name)]
    times += [one.at_s for one in reserved if one.site in ("", reserved_name)]
    if now_s - plan.snapshot.taken_s <= recent_s:
        times = [at_s for at_s in times if at_s <= now_s + _SKEW_S]
    newest_s = max(times, default=0)
    if plan.snapshot.taken_s < newest_s:
        age_s = newest_s - plan.snapshot.taken_s
        allowed = f"must not be older than the newest plan that was written, {age_s} s younger"
        raise Rejected.field("plan", "taken_s", plan.snapshot.taken_s, allowed)


def _nodes(mark: OwnershipMark) -> set[str]:
    """Return the nodes that a mark's plan gave to its job."""
    try:
        return set(expand(mark.values.get("nodes", "")))
    except ValueError:
        return set()
