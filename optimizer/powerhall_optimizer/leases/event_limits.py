"""Lower the budgets of a snapshot to the limits of events that came after the plan."""

from collections.abc import Sequence

import msgspec

from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.site.curtailment import NO_LIMIT_W, Event, Ramp, curtailed
from powerhall.site.index import SiteIndex
from powerhall.timeseries import Series

__all__ = ["with_event_limits"]


def with_event_limits(snapshot: Snapshot, events: Sequence[Event], ramp: Ramp | None = None) -> Snapshot:
    """Return the snapshot with budgets no higher than these events allow, with their ramps.

    An event of a zone that the site does not have raises Rejected: which budget it lowers is not known.
    """
    site = snapshot.site
    limits = SiteIndex.of(site).limits_w
    budgets = dict(site.budgets)
    for zone in sorted({event.zone for event in events}):
        if zone not in limits:
            raise Rejected.field("events", "zone", zone, f"must be a zone of the plan's site {site.name!r}")
        limit_w = limits[zone]
        base = budgets.get(zone) or Series((0.0,), (NO_LIMIT_W if limit_w is None else limit_w,))
        budgets[zone] = curtailed(base, [event for event in events if event.zone == zone], ramp or Ramp())
    return msgspec.structs.replace(snapshot, site=msgspec.structs.replace(site, budgets=budgets))
