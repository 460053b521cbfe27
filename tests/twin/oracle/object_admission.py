"""Admission control: a start is admitted where its planned power keeps every budget and cooling capacity."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from object_actions import Start
from object_cluster import Cluster, Run
from object_meters import Reading, SiteMeter

from powerhall.physics.weather import Weather
from powerhall.site.topology import Site

__all__ = ["Admission", "added_rack_w", "planned_rack_w"]

_TINY_W = 1e-6


def planned_rack_w(cluster: Cluster) -> dict[str, float]:
    """Return the planned IT power of every rack in W: idle nodes plus the planned draw of every run."""
    rack_w = {
        rack.zone: len(rack.nodes) * cluster.site.node_types[rack.node_type].idle_power_w
        for rack in cluster.site.racks()
    }
    for run in cluster.runs.values():
        for rack, added_w in _run_rack_w(cluster, run).items():
            rack_w[rack] += added_w
    return rack_w


def _run_rack_w(cluster: Cluster, run: Run | Start) -> dict[str, float]:
    each_w = max(0.0, run.planned_gpu_w - run.node_type.idle_gpu_power_w)
    added: dict[str, float] = {}
    for part in run.slices:
        rack = cluster.index.rack_of[part.node].zone
        added[rack] = added.get(rack, 0.0) + each_w * len(part.gpus)
    return added


def added_rack_w(cluster: Cluster, start: Start) -> dict[str, float]:
    """Return the planned power that a start adds to each rack, in W."""
    return _run_rack_w(cluster, start)


@dataclass(slots=True)
class Admission:
    """Compares planned power with the budgets in force and with the cooling capacity in this weather."""

    cluster: Cluster
    budgets: Mapping[str, float]
    weather: Weather
    rack_w: dict[str, float]
    meter: SiteMeter
    _reading: Reading | None = field(default=None)

    @classmethod
    def of(cls, cluster: Cluster, budgets: Mapping[str, float], weather: Weather) -> "Admission":
        """Start from the planned power of the running jobs."""
        return cls(cluster, budgets, weather, planned_rack_w(cluster), SiteMeter.of(cluster.site))

    @property
    def site(self) -> Site:
        """The site."""
        return self.cluster.site

    def room_w(self, zone: str) -> float:
        """Return the IT power that a feed, hall, row or rack still carries in W; infinite without a budget."""
        budget_w = self.budgets.get(zone)
        if budget_w is None:
            return math.inf
        if self._reading is None:
            self._reading = self._read(self.rack_w)
        return budget_w - self._reading.it_w[zone]

    def zones_over(self) -> set[str]:
        """Return the zones whose budget, and the halls whose cooling capacity, the admitted load exceeds."""
        reading = self._read(self.rack_w)
        over = {z for z, budget_w in self.budgets.items() if reading.power_w(self.site, z) > budget_w + _TINY_W}
        return over | {hall for hall, load in reading.halls.items() if not load.cooled}

    def fits(self, rack_w: Mapping[str, float]) -> bool:
        """Return whether this load per rack keeps every budget and every cooling capacity."""
        return self._holds(self._read(rack_w))

    def admit(self, added_w: Mapping[str, float]) -> bool:
        """Add a load per rack if everything still fits; return whether it was added."""
        trial = {rack: power_w + added_w.get(rack, 0.0) for rack, power_w in self.rack_w.items()}
        reading = self._read(trial)
        if not self._holds(reading):
            return False
        self.rack_w, self._reading = trial, reading
        return True

    def add(self, added_w: Mapping[str, float]) -> None:
        """Add a load per rack that is known to fit."""
        for rack, power_w in added_w.items():
            self.rack_w[rack] += power_w
        self._reading = None

    def remove(self, run: Run) -> None:
        """Take the load of a run away."""
        for rack, added_w in _run_rack_w(self.cluster, run).items():
            self.rack_w[rack] -= added_w
        self._reading = None

    def _read(self, rack_w: Mapping[str, float]) -> Reading:
        return self.meter.read(rack_w, self.weather, 0.0)

    def _holds(self, reading: Reading) -> bool:
        powers = all(reading.power_w(self.site, zone) <= w + _TINY_W for zone, w in self.budgets.items())
        return powers and all(load.cooled for load in reading.halls.values())
