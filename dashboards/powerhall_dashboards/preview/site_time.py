"""The local time of a site, in which its pages are read."""

from datetime import tzinfo

from powerhall.forecasts.page_times import page_zone
from powerhall.store import Store
from powerhall_dashboards.boards.parts import table

__all__ = ["site_zone"]

_WEEK_S = 7 * 86_400.0


def site_zone(store: Store, site: tuple[str, ...], end_s: float) -> tzinfo:
    """Return the site's offset to UTC at `end_s`, by the time zone that its plans name; UTC where they name none."""
    plans = table("plan", {"zone": "timezone"}, {"site": site}, ())
    rows = store.query(plans, end_s - _WEEK_S, end_s + 1)
    return page_zone(str(rows[0].values["zone"] or "") if rows else "", end_s)
