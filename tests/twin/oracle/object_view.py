"""The view and the interface of policies of the object engine."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from object_actions import Action
from object_cluster import Cluster
from object_queue import Queue

from powerhall.physics.weather import Weather
from powerhall.site.topology import Site


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The state of the site at one moment; `budgets` maps zones to the limits in force, in W."""

    site: Site
    cluster: Cluster
    queue: Queue
    budgets: Mapping[str, float]
    weather: Weather
    now_s: float


class Policy(Protocol):
    """Decides which jobs start, stop or change their power mode."""

    def decide(self, view: PolicyView) -> Iterable[Action]: ...
