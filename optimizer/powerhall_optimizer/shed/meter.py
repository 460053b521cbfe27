"""The site's power at the meter now: the baseline of a cut by a share."""

from powerhall.store import Store
from powerhall.store.questions import latest

__all__ = ["baseline_w"]

_FRESH_S = 60.0


def baseline_w(store: Store | None, site: str, planned_w: float, now_s: float) -> float:
    """Return the lower of the planned power and the meter's newest reading of the last minute, where there is one.

    Plans count upper bounds of draws; a grid operator measures a cut from the power at the meter.
    """
    if store is None:
        return planned_w
    rows = latest(store, "site_10s", ("facility_power_w",), now_s, max_age_s=_FRESH_S, where={"site": site})
    found = [value for row in rows if (value := row.number("facility_power_w")) is not None and value > 0]
    return min([planned_w, *found])
