"""Conditions of a site per slot: budgets, base load without jobs, weather. Problems and placement build on them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt

from powerhall.hostlist import expand
from powerhall.jobs import Job
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Snapshot, gpu_power_w
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Rack
from powerhall.units import format_power
from powerhall_optimizer.physics.plan_loads import zone_budgets

__all__ = ["MILD", "Heat", "SiteConditions", "time_text"]

Floats = npt.NDArray[np.float64]
MILD = Weather(20.0, 15.0)
"""Weather assumed where none is known; plants that depend on the weather need weather data."""


@dataclass(frozen=True, slots=True)
class Heat:
    """IT power in W that goes to liquid and to air."""

    liquid_w: float
    air_w: float

    @property
    def it_w(self) -> float:
        """Both together."""
        return self.liquid_w + self.air_w


def time_text(time_s: float) -> str:
    """Write a time of the plan for people."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%MZ")


class SiteConditions:
    """Budgets per zone and slot (margins taken off), base load per rack and hall, weather per slot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.site = snapshot.site
        self.index = SiteIndex.of(snapshot.site)
        self.down = frozenset(snapshot.down_nodes)
        self.stale = frozenset(snapshot.stale_nodes)

    @cached_property
    def budgets_w(self) -> dict[str, Floats]:
        """Budget of every zone that has one, per slot, in W; margins of the forecast are already taken off."""
        margin_w = self.snapshot.margin_w
        limits = zone_budgets(self.snapshot)
        return {zone: np.maximum(0.0, values - margin_w.get(zone, 0.0)) for zone, values in limits.items()}

    @cached_property
    def weather(self) -> tuple[Weather, ...]:
        """Outdoor air per slot."""
        s = self.snapshot
        if not s.dry_bulb_c:
            return (MILD,) * s.slots
        return tuple(Weather(d, w) for d, w in zip(s.dry_bulb_c, s.wet_bulb_c, strict=True))

    @cached_property
    def base_w(self) -> dict[str, float]:
        """Power of every rack when no job runs: idle, nothing for nodes that are down, the maximum for stale ones."""
        return {rack.zone: self._rack_base_w(rack) for rack in self.site.racks()}

    def _rack_base_w(self, rack: Rack) -> float:
        kind = self.site.node_types[rack.node_type]
        up = [node for node in rack.nodes if node not in self.down]
        stale = sum(node in self.stale for node in up)
        return (len(up) - stale) * kind.idle_power_w + stale * kind.max_power_w

    def hall_base(self, hall: Hall) -> Heat:
        """Base load of a hall by medium."""
        liquid = air = 0.0
        for rack in hall.racks():
            share = self.site.node_types[rack.node_type].liquid_fraction
            liquid += share * self.base_w[rack.zone]
            air += (1 - share) * self.base_w[rack.zone]
        return Heat(liquid, air)

    def most_added_w(self, rack: Rack) -> float:
        """Return the most that jobs can add to a rack's base load, whatever their class."""
        kind = self.site.node_types[rack.node_type]
        classes = (None, *self.site.job_classes.values())
        most = max(gpu_power_w(kind, mode, c) for mode in kind.modes for c in classes) - kind.idle_gpu_power_w
        return max(0.0, most) * kind.gpus * len(self.usable(rack))

    def usable(self, rack: Rack) -> tuple[str, ...]:
        """Nodes of a rack on which jobs may start."""
        return tuple(node for node in rack.nodes if node not in self.down and node not in self.stale)

    def counted_gpus(self, job: Job) -> int:
        """GPUs of a running job that count: stale nodes are in the base load at their maximum, others down."""
        if job.nodes is None or not (self.stale or self.down):
            return job.gpus
        nodes = expand(job.nodes)
        fresh = sum(node not in self.stale and node not in self.down for node in nodes)
        return -(-job.gpus * fresh // len(nodes))

    def refuse_below(self, zone: str, what: str, free_w: Floats) -> None:
        """Refuse a budget or a capacity below the base load in some slot: no plan can hold it.

        Nothing is refused while stale nodes count at their maximum: the zone then takes no new job.
        """
        free_w = free_w + self.snapshot.margin_w.get(zone, 0.0)
        slot = int(np.argmin(free_w))
        if free_w[slot] < -0.5 and not self.stale:
            when = time_text(self.snapshot.start_s + slot * self.snapshot.slot_s)
            raise Rejected(
                f"site: {zone}: {what} at {when} is {format_power(-float(free_w[slot]))} below the load of the idle "
                "site; must be at least that load"
            )
