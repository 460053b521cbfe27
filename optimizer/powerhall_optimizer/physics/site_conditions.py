"""Conditions of a site per slot: budgets, base load without jobs, weather. Problems and placement build on them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt

from powerhall.jobs import Job
from powerhall.jobs.model import node_gpus
from powerhall.physics.weather import Weather
from powerhall.plan.plan import Snapshot, gpu_power_w
from powerhall.runtime.errors import Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Hall, Rack
from powerhall.units import format_power
from powerhall_optimizer.physics.plan_loads import held_on_nodes, zone_budgets

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
    """Write a time of the plan for people; one that no calendar has, as its seconds."""
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%MZ")
    except (OverflowError, ValueError, OSError):
        return f"{time_s:g} s"


class SiteConditions:
    """Budgets per zone and slot (margins taken off), base load per rack and hall, weather per slot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.site = snapshot.site
        self.index = SiteIndex.of(snapshot.site)
        self.off = frozenset(snapshot.off_nodes)
        self.down = frozenset(snapshot.down_nodes)
        self.stale = frozenset(snapshot.stale_nodes)
        self.held_gpus, self.held_w = held_on_nodes(snapshot)

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
        """Power of every rack without jobs of the plan: idle and what is held, nothing for nodes that are off.

        Stale nodes count at their maximum.
        """
        return {rack.zone: self._rack_base_w(rack) for rack in self.site.racks()}

    def _rack_base_w(self, rack: Rack) -> float:
        kind = self.site.node_types[rack.node_type]
        up = [node for node in rack.nodes if node not in self.off]
        stale = sum(node in self.stale for node in up)
        held_w = sum(self.held_w[node] for node in up if node in self.held_w and node not in self.stale)
        return (len(up) - stale) * kind.idle_power_w + stale * kind.max_power_w + held_w

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
        return max(0.0, most) * (self.free_gpus(rack) + self._running_on_down(rack))

    @cached_property
    def _on_down(self) -> dict[str, int]:
        """GPUs of running jobs on each node that is down."""
        found: dict[str, int] = {}
        for job in self.snapshot.jobs if self.down else ():
            for node, gpus in node_gpus(job).items() if job.state == "running" else ():
                if node in self.down:
                    found[node] = found.get(node, 0) + gpus
        return found

    def _running_on_down(self, rack: Rack) -> int:
        return sum(self._on_down.get(node, 0) for node in rack.nodes) if self.down else 0

    def is_usable(self, node: str) -> bool:
        """Whether jobs may start on a node."""
        return node not in self.down and node not in self.stale and node not in self.off

    def usable(self, rack: Rack) -> tuple[str, ...]:
        """Nodes of a rack on which jobs may start."""
        return tuple(node for node in rack.nodes if self.is_usable(node))

    def occupied(self, rack: Rack) -> tuple[str, ...]:
        """Nodes of a rack on which jobs of the plan may start or run: those whose power is not fixed."""
        return tuple(node for node in rack.nodes if node not in self.stale and node not in self.off)

    def free_gpus(self, rack: Rack) -> int:
        """GPUs of a rack that jobs of the plan may use."""
        nodes = self.usable(rack)
        held = sum(self.held_gpus.get(node, 0) for node in nodes) if self.held_gpus else 0
        return self.site.node_types[rack.node_type].gpus * len(nodes) - held

    def drawing_gpus(self, job: Job) -> int:
        """GPUs of a running job whose power counts: stale nodes are in the base load at their maximum."""
        if job.nodes is None or not (self.stale or self.off):
            return job.gpus
        return sum(gpus for node, gpus in node_gpus(job).items() if node not in self.stale and node not in self.off)

    def pool_gpus(self, job: Job) -> int:
        """GPUs of a running job that others could use otherwise: those on nodes on which jobs may start."""
        if job.nodes is None or not (self.stale or self.off or self.down):
            return job.gpus
        return sum(gpus for node, gpus in node_gpus(job).items() if self.is_usable(node))

    def refuse_below(self, zone: str, what: str, free_w: Floats) -> None:
        """Refuse a budget or a capacity below the base load in some slot: no plan can hold it.

        Nothing is refused for nodes at their maximum, nor for what is held: the zone then takes no new job.
        """
        free_w = free_w + self.snapshot.margin_w.get(zone, 0.0)
        slot = int(np.argmin(free_w))
        if free_w[slot] < -0.5 and not (self.stale or self.held_w):
            when = time_text(self.snapshot.start_s + slot * self.snapshot.slot_s)
            raise Rejected(
                f"site: {zone}: {what} at {when} is {format_power(-float(free_w[slot]))} below the load of the idle "
                "site; must be at least that load"
            )
