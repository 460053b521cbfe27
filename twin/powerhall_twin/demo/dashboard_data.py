"""Data of the dashboards beyond agents and meters: the optimizer's roll-up of each sample, and intervals of jobs.

A sample is rolled up when the agents have delivered it, two samples later. The readings of the meters then overwrite
the figures that the roll-up computed from GPUs.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.store.base import Store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.rollup.readings import BUCKET_S
from powerhall_optimizer.rollup.rollup_cycle import Rollup
from powerhall_twin.site.placed_runs import Slice
from powerhall_twin.site.simulated_nodes import SimulatedNodes

__all__ = ["DashboardWriter"]

_DELIVERED_AFTER: Final = 2


@dataclass(slots=True)
class DashboardWriter:
    """Writes roll-ups, meter readings and job intervals of a running site."""

    store: Store
    nodes: SimulatedNodes
    rollup: Rollup
    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    samples: deque[tuple[int, bytes]] = field(default_factory=deque)
    energy_j: dict[tuple[str, int], float] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, nodes: SimulatedNodes, site: Site, sample_s: float) -> "DashboardWriter":
        """Return the writer of a site whose agents sample every `sample_s` seconds."""
        halls = tuple(hall.zone for hall in site.halls)
        index = SiteIndex.of(site)
        places = {node: (index.hall_of(node).zone, rack.zone) for node, rack in index.rack_of.items()}
        return cls(store, nodes, Rollup(store, site, halls, True, round(2 * sample_s)), places)

    def sample(self, site: Site, time_s: float, meters: bytes) -> None:
        """Queue a sample's meter readings and write the sample that the agents have delivered by now."""
        self.rollup.site = site
        self.samples.append((int(time_s // BUCKET_S) * BUCKET_S, meters))
        if len(self.samples) > _DELIVERED_AFTER:
            self._write()

    def close(self) -> None:
        """Write the remaining samples, after the agents have delivered everything."""
        while self.samples:
            self._write()

    def _write(self) -> None:
        time_s, meters = self.samples.popleft()
        self.rollup.run(time_s, time_s + BUCKET_S)
        self.store.write(meters)
        self.rollup.coarse(time_s - 1, time_s + BUCKET_S)

    def interval(self, job: str, slices: Iterable[Slice], start_s: float, end_s: float = 0.0) -> None:
        """Write a job's GPU intervals at their start, as agents do, and again at their end with the energy since."""
        points = []
        for part in slices:
            hall, rack = self.places[part.node]
            for gpu in part.gpus:
                used_j = self.nodes.energy_j(part.node, gpu)
                if not end_s:
                    self.energy_j[part.node, gpu] = used_j
                energy_j = used_j - self.energy_j.get((part.node, gpu), used_j)
                tags = {"site": self.rollup.site.name, "hall": hall, "rack": rack, "node": part.node, "gpu": str(gpu)}
                fields: dict[str, float | str] = {"job": job, "start_s": start_s, "end_s": end_s, "energy_j": energy_j}
                points.append(encode(Point("job_interval", tags, fields, round(start_s * 1000))))
        self.store.write(b"".join(points))
