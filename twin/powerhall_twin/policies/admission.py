"""Admission control: a start is admitted where its planned power keeps every budget and cooling capacity."""

from collections.abc import Mapping
from dataclasses import dataclass

from powerhall.physics.weather import Weather
from powerhall.site.topology import Site
from powerhall_twin.site.actions import Start
from powerhall_twin.site.building_meters import SiteMeter
from powerhall_twin.site.cluster import Cluster

__all__ = ["Admission", "added_rack_w", "planned_rack_w"]


def planned_rack_w(cluster: Cluster) -> dict[str, float]:
    """Return the planned IT power of every rack in W: idle nodes plus the planned draw of every run."""
    rack_w = {
        rack.zone: len(rack.nodes) * cluster.site.node_types[rack.node_type].idle_power_w
        for rack in cluster.site.racks()
    }
    for run in cluster.runs.values():
        added_w = max(0.0, run.planned_gpu_w - run.node_type.idle_gpu_power_w)
        for part in run.slices:
            rack_w[cluster.index.rack_of[part.node].zone] += added_w * len(part.gpus)
    return rack_w


def added_rack_w(cluster: Cluster, start: Start) -> dict[str, float]:
    """Return the planned power that a start adds to each rack, in W."""
    each_w = max(0.0, start.planned_gpu_w - start.node_type.idle_gpu_power_w)
    added: dict[str, float] = {}
    for part in start.slices:
        rack = cluster.index.rack_of[part.node].zone
        added[rack] = added.get(rack, 0.0) + each_w * len(part.gpus)
    return added


@dataclass(slots=True)
class Admission:
    """Compares planned power with the budgets in force and with the cooling capacity in this weather."""

    site: Site
    budgets: Mapping[str, float]
    weather: Weather
    rack_w: dict[str, float]
    meter: SiteMeter

    @classmethod
    def of(cls, cluster: Cluster, budgets: Mapping[str, float], weather: Weather) -> "Admission":
        """Start from the planned power of the running jobs."""
        return cls(cluster.site, budgets, weather, planned_rack_w(cluster), SiteMeter.of(cluster.site))

    def fits(self, rack_w: Mapping[str, float]) -> bool:
        """Return whether this load per rack keeps every budget and every cooling capacity."""
        reading = self.meter.read(rack_w, self.weather, 0.0)
        powers = all(reading.power_w(self.site, zone) <= budget_w + 1e-6 for zone, budget_w in self.budgets.items())
        return powers and all(load.cooled for load in reading.halls.values())

    def admit(self, added_w: Mapping[str, float]) -> bool:
        """Add a load per rack if everything still fits; return whether it was added."""
        trial = {rack: power_w + added_w.get(rack, 0.0) for rack, power_w in self.rack_w.items()}
        if not self.fits(trial):
            return False
        self.rack_w = trial
        return True
