"""Halls that get too warm: their GPUs throttle, then the hall trips, until it has cooled again."""

from dataclasses import dataclass, field

import numpy as np

from powerhall_twin.engine.columns import HALL, HALL_FIRST, RACK_FIRST
from powerhall_twin.engine.job_arrays import throttle_hall
from powerhall_twin.engine.meter import Gauges
from powerhall_twin.engine.outages import Outages
from powerhall_twin.engine.site_arrays import Ints

__all__ = ["HallHeat"]


@dataclass(slots=True)
class HallHeat:
    """The halls that throttle and those that have tripped, with the seconds and the number of both."""

    outages: Outages
    slowest: Ints
    throttled: set[int] = field(default_factory=set)
    tripped: set[int] = field(default_factory=set)
    throttled_s: float = 0.0
    trips: int = 0

    @classmethod
    def of(cls, outages: Outages) -> "HallHeat":
        """Return halls at their set points."""
        speeds = [[mode.speed for mode in kind.modes] for kind in outages.state.arrays.types]
        return cls(outages, np.array([int(np.argmin(one)) for one in speeds], np.int64))

    def update(self, gauges: Gauges, dt_s: float) -> None:
        """Throttle, trip and recover after a stretch of so many seconds."""
        rules, state = self.outages.rules, self.outages.state
        self.throttled_s += dt_s * len(self.throttled)
        for hall in {*np.flatnonzero(gauges.excess_k > 0.0).tolist(), *self.throttled, *self.tripped}:
            excess_k = gauges.excess_k[hall]
            if excess_k >= rules.trip_k and hall not in self.tripped:
                self._trip(hall)
            if hall in self.tripped and excess_k <= rules.recover_k:
                self.tripped.remove(hall)
                self.outages.hold(self._nodes(hall), -1)
            is_hot = excess_k > (rules.recover_k if hall in self.throttled else rules.throttle_k)
            if is_hot:
                self.throttled.add(hall)
            if hall in self.throttled:  # also those that began since
                throttle_hall(state.world, hall, self.slowest, is_hot, state.now_s)
            if not is_hot:
                self.throttled.discard(hall)

    def _nodes(self, hall: int) -> range:
        layout = self.outages.state.world.layout
        racks = layout.halls[HALL_FIRST]
        return range(int(layout.racks[RACK_FIRST, racks[hall]]), int(layout.racks[RACK_FIRST, racks[hall + 1]]))

    def _trip(self, hall: int) -> None:
        self.trips += 1
        self.tripped.add(hall)
        state = self.outages.state
        self.outages.stop_hall(j for j in state.running.tolist() if state.world.jobs.ints[HALL, j] == hall)
        self.outages.hold(self._nodes(hall), 1)
