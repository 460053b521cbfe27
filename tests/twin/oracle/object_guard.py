"""Compares every reading with the budgets in force and with the cooling capacity."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from object_meters import Reading

from powerhall.site.topology import Site
from powerhall_twin.site.breach import Breach, LimitKind

__all__ = ["LimitGuard"]

TOLERANCE_W = 1.0


@dataclass(slots=True)
class LimitGuard:
    """Keeps the breaches, and of every zone the lowest headroom as a share of its budget with its time."""

    breaches: list[Breach] = field(default_factory=list)
    worst_headroom: dict[str, float] = field(default_factory=dict)
    worst_at_s: dict[str, float] = field(default_factory=dict)
    samples: int = 0

    def check(self, site: Site, reading: Reading, budgets: Mapping[str, float], time_s: float) -> None:
        """Compare one reading with the budgets in force."""
        self.samples += 1
        for zone, budget_w in budgets.items():
            self._one(time_s, zone, LimitKind.POWER, reading.power_w(site, zone), budget_w)
        for zone, load in reading.halls.items():
            for medium, heat_w in load.heat_w.items():
                name = f"{zone} cooling" if medium == "all" else f"{zone} cooling ({medium})"
                self._one(time_s, name, LimitKind.COOLING, heat_w, load.capacity_w[medium])

    def _one(self, time_s: float, zone: str, limit: LimitKind, value_w: float, limit_w: float) -> None:
        headroom = (limit_w - value_w) / limit_w if limit_w > 0 else -1.0
        if headroom < self.worst_headroom.get(zone, 2.0):
            self.worst_headroom[zone], self.worst_at_s[zone] = headroom, time_s
        if value_w > limit_w + TOLERANCE_W:
            self.breaches.append(Breach(time_s, zone, limit, value_w, limit_w))
