"""Headroom per slot of rows, racks, and feeds that carry parts of halls."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from powerhall.site.topology import Rack
from powerhall_optimizer.physics.hall_lines import feed_halls
from powerhall_optimizer.physics.site_conditions import SiteConditions

__all__ = ["ZoneHeadroom"]

Floats = npt.NDArray[np.float64]


class ZoneHeadroom:
    """Headroom of the zones that placement holds, in W above the base load.

    ZoneHeadroom whose budget carries all of their nodes at full power are left out.
    """

    def __init__(self, conditions: SiteConditions) -> None:
        self.slots = conditions.snapshot.slots
        self.left: dict[str, Floats] = {}
        self.of_rack: dict[str, list[str]] = {rack.zone: [] for rack in conditions.site.racks()}
        for hall in conditions.site.halls:
            for row in hall.rows:
                self._add(conditions, row.zone, row.racks)
                for rack in row.racks:
                    self._add(conditions, rack.zone, (rack,))
        for feed in conditions.site.feeds:
            racks = conditions.index.racks_under(feed.zone)
            whole = {rack.zone for hall in feed_halls(conditions, feed) for rack in hall.racks()}
            if any(rack.zone not in whole for rack in racks):
                self._add(conditions, feed.zone, racks)

    def _add(self, conditions: SiteConditions, zone: str, racks: Sequence[Rack]) -> None:
        if zone not in conditions.budgets_w:
            return
        left = conditions.budgets_w[zone] - sum(conditions.base_w[rack.zone] for rack in racks)
        conditions.refuse_below(zone, "power budget", left)
        if left.min() >= sum(conditions.most_added_w(rack) for rack in racks):
            return
        self.left[zone] = np.maximum(left, 0.0)
        for rack in racks:
            self.of_rack[rack.zone].append(zone)

    def room_w(self, zone: str, start: int, end: int) -> float:
        """Return the least headroom of a zone from slot start to end."""
        return float(self.left[zone][start : min(end, self.slots)].min())

    def exceeded(self, loads: Mapping[str, float], start: int, end: int) -> dict[str, int]:
        """Return the zones that the loads of these racks exceed, each with the first slot in which they do."""
        total: dict[str, float] = {}
        for rack, power_w in loads.items():
            for zone in self.of_rack[rack]:
                total[zone] = total.get(zone, 0.0) + power_w
        found: dict[str, int] = {}
        for zone, power_w in total.items():
            over = self.left[zone][start : min(end, self.slots)] < power_w - 1e-6
            if over.any():
                found[zone] = start + int(np.argmax(over))
        return found

    def fits(self, loads: Mapping[str, float], start: int, end: int) -> bool:
        """Whether every zone carries the loads of these racks."""
        return not self.exceeded(loads, start, end)

    def add(self, loads: Mapping[str, float], start: int, end: int) -> None:
        """Subtract the loads from the headroom."""
        for rack, power_w in loads.items():
            for zone in self.of_rack[rack]:
                self.left[zone][start : min(end, self.slots)] -= power_w
