"""The input of a simulation: a site, its jobs, weather and prices, and the simulated time."""

from dataclasses import dataclass

from powerhall.jobs.model import Job
from powerhall.physics.weather import Weather
from powerhall.site.topology import Mode, NodeType, Site
from powerhall.timeseries import Series
from powerhall_twin.site.failures import Failure, FailureRules
from powerhall_twin.site.placed_runs import Slice

__all__ = ["MILD", "Scenario", "Start"]

MILD = Weather(20.0, 15.0)
"""Weather assumed where none is known."""


@dataclass(frozen=True, slots=True)
class Start:
    """A job on these GPUs in this mode; `planned_gpu_w` is the planning figure per GPU, `left_s` its work left."""

    job: Job
    hall: str
    node_type: NodeType
    mode: Mode
    slices: tuple[Slice, ...]
    planned_gpu_w: float
    left_s: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """A site, its jobs, weather and prices, from `start_s` to `end_s`."""

    site: Site
    jobs: tuple[Job, ...]
    start_s: float
    end_s: float
    dry_bulb_c: Series | None = None
    wet_bulb_c: Series | None = None
    price_per_mwh: Series | None = None
    running: tuple[Start, ...] = ()
    """Jobs that already run at the start, on their nodes."""
    carbon_g_per_kwh: Series | None = None
    failures: tuple[Failure, ...] = ()
    rules: FailureRules | None = None
    """What follows failures and heat that plants do not take; None: neither is simulated, too much heat is counted."""

    def weather(self, time_s: float) -> Weather:
        """Return the weather at a moment; a mild day where none is known."""
        if self.dry_bulb_c is None or self.wet_bulb_c is None:
            return MILD
        return Weather(self.dry_bulb_c.at(time_s), self.wet_bulb_c.at(time_s))
