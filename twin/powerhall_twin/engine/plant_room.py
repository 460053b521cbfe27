"""What happens to a running site besides its jobs: failures, stores, and halls that get too warm."""

import math
from dataclasses import dataclass

from powerhall_twin.engine.hall_heat import HallHeat
from powerhall_twin.engine.meter import Gauges
from powerhall_twin.engine.outages import Outages
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.engine.policy import Policy
from powerhall_twin.engine.ramps import WINDOW_S, Ramps
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.engine.stores import Stores

__all__ = ["PlantRoom"]


@dataclass(slots=True)
class PlantRoom:
    """The parts of the site that act on their own; each is absent where the scenario has nothing for it."""

    state: SimState
    gauges: Gauges
    outages: Outages | None
    heat: HallHeat | None
    stores: Stores | None
    ramps: Ramps | None

    @classmethod
    def of(cls, state: SimState, gauges: Gauges) -> "PlantRoom":
        """Return those of the scenario."""
        scenario, outages, stores = state.scenario, None, None
        if scenario.rules is not None:
            outages = Outages.of(state, scenario.failures, scenario.rules)
        if scenario.site.storages:
            stores = Stores.of(state, gauges)
        return cls(
            state, gauges, outages, None if outages is None else HallHeat.of(outages), stores, Ramps.of(scenario.site)
        )

    def before(self, policy: Policy) -> float:
        """Before a policy decides: let fail what is due, and let stores deliver; return when that changes."""
        until_s = math.inf
        if self.outages is not None:
            self.outages.update()
            until_s = self.outages.next_s
        if self.stores is not None:
            self.state.stored_j = self.stores.contents()
            planned, planned_until_s = policy.planned_stores(self.state.now_s)
            self.stores.deliver(planned, planned_until_s)
            until_s = min(until_s, planned_until_s)
        if self.ramps is not None:
            until_s = min(until_s, self.ramps.allow(self.state))
        return until_s

    def after(self, policy: Policy) -> float:
        """After it has decided: fill stores that have no plan; return when the first is full or empty."""
        if self.stores is None:
            return math.inf
        planned, until_s = policy.planned_stores(self.state.now_s)
        if planned is None:
            self.stores.refill()
        else:
            self.stores.deliver(planned, until_s)
        return min(until_s, self.stores.next_s)

    def advance(self, dt_s: float) -> None:
        """Count a stretch of time that ends now."""
        if self.ramps is not None:
            self.ramps.add(self.state.now_s, dt_s, float(self.gauges.totals[0]))
        if self.stores is not None:
            self.stores.advance(dt_s)
        if self.heat is not None:
            self.heat.update(self.gauges, dt_s)

    def close(self, outcome: SimulationOutcome) -> None:
        """Add what happened to the totals."""
        if self.outages is not None and self.heat is not None:
            outcome.failures, outcome.interrupted = self.outages.begun, self.outages.interrupted
            outcome.throttled_s, outcome.trips = self.heat.throttled_s, self.heat.trips
        if self.stores is not None:
            outcome.delivered_j = self.stores.delivered_j
            outcome.stored_j = self.stores.contents()
        if self.ramps is not None:
            outcome.fast_rises, outcome.fast_falls = self.ramps.rises, self.ramps.falls
            outcome.steepest_rise_w_per_s = self.ramps.steepest_rise_w / WINDOW_S
            outcome.steepest_fall_w_per_s = self.ramps.steepest_fall_w / WINDOW_S
