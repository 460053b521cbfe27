"""A running scenario: its state, the meters of its building and its totals, moved from one moment to the next.

`simulate` moves it from event to event with the power of its tables, `measured_site` step by step with measured power.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_twin.engine.job_arrays import submit
from powerhall_twin.engine.meter import MEDIA, Gauges, advance
from powerhall_twin.engine.outcome import SimulationOutcome, close_outcome
from powerhall_twin.engine.samples import take_sample
from powerhall_twin.engine.sim_state import SimState, ready_s
from powerhall_twin.engine.site_arrays import Floats
from powerhall_twin.site.scenario import Scenario

__all__ = ["MIN_STEP_S", "Simulation"]

MIN_STEP_S = 1.0
_WATER_J_PER_K_W = 41.8
"""Heat capacity of the water in the loops of a hall per W of its plants: 10 l per kW."""
_DONE_S = 1e-3
"""Work that is taken as done, in seconds at full speed."""


class _Tariff(NamedTuple):
    """What a MWh costs, what a kWh emits in g, and whether the site's budget is below its highest."""

    price_per_mwh: float = 0.0
    carbon_g_per_kwh: float = 0.0
    is_curtailed: bool = False


@dataclass(slots=True)
class Simulation:
    """The running scenario; `limits_w` are the budgets of the site and of each zone, infinite where there is none."""

    state: SimState
    outcome: SimulationOutcome
    gauges: Gauges
    limits_w: Floats
    submits_s: list[float]
    highest_w: float
    step_s: float = math.inf
    tariff: _Tariff = field(default_factory=_Tariff)
    queued: int = 0
    sampled_s: float = 0.0

    @classmethod
    def of(cls, scenario: Scenario, name: str, step_s: float = math.inf) -> "Simulation":
        """Return a scenario at its start; while a hall has too much heat no step is longer than `step_s`."""
        state = SimState.of(scenario)
        if scenario.rules is not None:
            step_s = min(step_s, scenario.rules.step_s)
        limits_w = np.full(1 + len(state.arrays.zones), np.inf)
        submits_s = [ready_s(job) for job in state.jobs]
        made = cls(state, SimulationOutcome(name), _gauges(state), limits_w, submits_s, _highest_w(scenario), step_s)
        made.sampled_s = state.now_s
        return made

    def put_moment(self) -> None:
        """Put weather, budgets and prices of now in force."""
        state, scenario, arrays = self.state, self.state.scenario, self.state.arrays
        weather = scenario.weather(state.now_s)
        if weather != state.weather:
            state.set_weather(weather)
        index = SiteIndex.of(arrays.site)
        moving = {zone: index.budget_at(zone, state.now_s) for zone in arrays.site.budgets}
        if not state.budgets or any(state.budgets.get(zone) != budget_w for zone, budget_w in moving.items()):
            budgets = index.budgets_at(state.now_s)
            state.set_budgets(budgets)
            self.limits_w[:] = [budgets.get(zone, math.inf) for zone in (arrays.site.name, *arrays.zones)]
        price, carbon = scenario.price_per_mwh, scenario.carbon_g_per_kwh
        self.tariff = _Tariff(
            price.at(state.now_s) if price else 0.0,
            carbon.at(state.now_s) if carbon else 0.0,
            bool(self.limits_w[0] < self.highest_w),
        )

    def change_site(self, site: Site) -> None:
        """Put the limits of a changed site file in force, from the next moment on."""
        self.state.change_site(site)
        self.highest_w = max(self.highest_w, _highest_w(self.state.scenario))

    def sample(self) -> None:
        """Take a sample of the stretch since the last one; the weather is still that of the stretch."""
        self.outcome.water_l += take_sample(self.outcome.samples, self.state, self.gauges, self.sampled_s)
        self.sampled_s = self.state.now_s

    @property
    def next_submit_s(self) -> float:
        """When the next job joins the queue, infinite after the last one."""
        return self.submits_s[self.queued] if self.queued < len(self.submits_s) else math.inf

    def arrive(self) -> None:
        """Queue the jobs that were submitted until now."""
        arrived = bisect_right(self.submits_s, self.state.now_s, lo=self.queued)
        if arrived > self.queued:
            submit(self.state.world, self.queued, arrived)
            self.queued = arrived

    def advance(self, until_s: float, least_s: float = MIN_STEP_S) -> float:
        """Go to the next event, at least `least_s` from now and at most to `until_s`; return the seconds."""
        state, began_s = self.state, self.state.now_s
        world = state.physical or state.world
        state.now_s = advance(
            world, self.gauges, self.limits_w, began_s, self.next_submit_s, until_s, least_s, self.step_s, _DONE_S
        )
        dt_s = state.now_s - began_s
        self._count(began_s, dt_s)
        return dt_s

    def _count(self, now_s: float, dt_s: float) -> None:
        outcome, tariff = self.outcome, self.tariff
        facility_w, it_w, over = self.gauges.totals.tolist()
        outcome.energy_j += facility_w * dt_s
        outcome.it_energy_j += it_w * dt_s
        outcome.cost += facility_w * dt_s / 3.6e9 * tariff.price_per_mwh
        outcome.co2_kg += facility_w * dt_s / 3.6e9 * tariff.carbon_g_per_kwh
        outcome.peak_w = max(outcome.peak_w, facility_w)
        outcome.over_budget_s += dt_s if over else 0.0
        if tariff.is_curtailed:
            outcome.curtailed_s += dt_s
            outcome.curtailed_over_s += dt_s if over else 0.0
        outcome.times_s.append(now_s)
        outcome.facility_w.append(facility_w)

    def close(self) -> None:
        """Count jobs, work and limits at the end."""
        self.sample()
        close_outcome(self.outcome, self.state, self.gauges)


def _highest_w(scenario: Scenario) -> float:
    """Return the site's highest budget in the window, 0 without one."""
    site, index = scenario.site, SiteIndex.of(scenario.site)
    series = site.budgets.get(site.name)
    steps = () if series is None else (t for t in series.times_s if scenario.start_s < t < scenario.end_s)
    return max(index.budget_at(site.name, t) or 0.0 for t in (scenario.start_s, *steps))


def _gauges(state: SimState) -> Gauges:
    arrays = state.arrays
    halls = len(arrays.site.halls)
    limits = 1 + len(arrays.zones) + len(MEDIA) * halls
    return Gauges(
        np.full(limits, np.inf),
        np.zeros(limits),
        np.zeros(limits),
        np.full(limits, np.nan),
        np.zeros(limits),
        np.zeros(limits),
        np.zeros(halls),
        np.zeros(halls),
        np.zeros(3 * halls),
        np.array([_WATER_J_PER_K_W * sum(plant.capacity_w for plant in hall.plants) for hall in arrays.site.halls]),
        state.delivered_w,
        np.zeros(halls),
        np.zeros(3),
    )
