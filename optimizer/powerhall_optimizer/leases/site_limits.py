"""Hold a plan to the limits of the site file: whoever may write the plan must not be able to raise a budget."""

import msgspec

from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Site
from powerhall.timeseries import Series

__all__ = ["within_site"]


def within_site(plan: Plan, site: Site, source: str) -> Plan:
    """Return the plan with the lower of its own and the site file's limit for every zone at every time.

    What limits mean must be the same on both sides: a plan of other zones, nodes, feeds, plants, losses, storage or
    node types than the file `source` has raises Rejected.
    """
    planned = plan.snapshot.site
    if site.name != planned.name:
        raise Rejected.field(source, "site.name", site.name, f"the plan is of site {planned.name!r}")
    if (part := _different(planned, site)) is not None:
        raise Rejected(f"{source}: the plan has another {part} than this file; run a round first")
    budgets = dict(planned.budgets)
    for zone, limit_w in SiteIndex.of(site).limits_w.items():
        for series in (site.budgets.get(zone), None if limit_w is None else Series((0.0,), (limit_w,))):
            if series is not None:
                budgets[zone] = _lower(budgets[zone], series) if zone in budgets else series
    held = msgspec.structs.replace(planned, budgets=budgets)
    margin_w = {zone: max(0.0, margin_w) for zone, margin_w in plan.snapshot.margin_w.items()}
    snapshot = msgspec.structs.replace(plan.snapshot, site=held, margin_w=margin_w)
    return msgspec.structs.replace(plan, snapshot=snapshot)


def _lower(one: Series, other: Series) -> Series:
    """Return the lower of two step functions at every time."""
    times = sorted({*one.times_s, *other.times_s})
    return Series(tuple(times), tuple(min(one.at(time_s), other.at(time_s)) for time_s in times))


def _different(planned: Site, site: Site) -> str | None:
    """Return the first part, limits of zones apart, that the two sites do not share."""
    ours, theirs = _parts(planned), _parts(site)
    return next((name for name, part in ours.items() if part != theirs[name]), None)


def _parts(site: Site) -> dict[str, object]:
    return {
        "hall": tuple(map(_without_limits, site.halls)),
        "feed": tuple((feed.zone, feed.members, feed.parent) for feed in site.feeds),
        "node type": site.node_types,
        "storage": site.storages,
    }


def _without_limits(hall: Hall) -> Hall:
    rows = (
        msgspec.structs.replace(
            row,
            power_limit_w=None,
            racks=tuple(msgspec.structs.replace(rack, power_limit_w=None) for rack in row.racks),
        )
        for row in hall.rows
    )
    return msgspec.structs.replace(hall, power_limit_w=None, rows=tuple(rows))
