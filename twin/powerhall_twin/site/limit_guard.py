"""How far the site stays below the budgets in force."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from powerhall.site.topology import Site
from powerhall_twin.site.building_meters import Reading

__all__ = ["Breach", "Guard"]

TOLERANCE_W = 1.0


@dataclass(frozen=True, slots=True)
class Breach:
    """A zone above its budget, or a hall whose heat its plants cannot take up (`what` is power or cooling)."""

    time_s: float
    zone: str
    what: str
    value_w: float
    limit_w: float


@dataclass(slots=True)
class Guard:
    """Judges every reading; keeps the breaches and the lowest headroom of every zone as a share of its budget."""

    breaches: list[Breach] = field(default_factory=list)
    worst_headroom: dict[str, float] = field(default_factory=dict)
    worst_at_s: dict[str, float] = field(default_factory=dict)
    samples: int = 0

    def judge(self, site: Site, reading: Reading, budgets: Mapping[str, float], time_s: float) -> None:
        """Compare one reading with the budgets in force."""
        self.samples += 1
        for zone, budget_w in budgets.items():
            self._one(time_s, zone, "power", reading.power_w(site, zone), budget_w)
        for zone, load in reading.halls.items():
            for medium, heat_w in load.heat_w.items():
                name = f"{zone} cooling" if medium == "all" else f"{zone} cooling ({medium})"
                self._one(time_s, name, "cooling", heat_w, load.capacity_w[medium])

    def _one(self, time_s: float, zone: str, what: str, value_w: float, limit_w: float) -> None:
        headroom = (limit_w - value_w) / limit_w if limit_w > 0 else -1.0
        if headroom < self.worst_headroom.get(zone, 2.0):
            self.worst_headroom[zone], self.worst_at_s[zone] = headroom, time_s
        if value_w > limit_w + TOLERANCE_W:
            self.breaches.append(Breach(time_s, zone, what, value_w, limit_w))
