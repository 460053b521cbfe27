"""The loop over the events of a scenario: the power is constant from one event to the next.

Events are submissions, ends of jobs, changes of weather, budgets and prices, and the ticks of a grid. The
draw and speed of a job come from `node_power.draw_of`, not from the planning figures of the policy.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from powerhall.site.index import SiteIndex
from powerhall_twin.engine.job_arrays import submit
from powerhall_twin.engine.meter import MEDIA, Gauges, advance
from powerhall_twin.engine.outcome import SimulationOutcome, close_outcome
from powerhall_twin.engine.plant_room import PlantRoom
from powerhall_twin.engine.policy import Policy
from powerhall_twin.engine.samples import take_sample
from powerhall_twin.engine.sim_state import SimState, ready_s
from powerhall_twin.engine.site_arrays import Floats
from powerhall_twin.site.scenario import Scenario

__all__ = ["simulate"]

_MIN_STEP_S = 1.0
_WATER_J_PER_K_W = 41.8
"""Heat capacity of the water in the loops of a hall per W of its plants: 10 l per kW."""
_DONE_S = 1e-3
"""Work that is taken as done, in seconds at full speed."""


def simulate(
    scenario: Scenario,
    policy: Policy,
    name: str,
    *,
    tick_s: float = 300.0,
    step_s: float = math.inf,
    progress: Callable[[float], None] = lambda _: None,
) -> SimulationOutcome:
    """Run the scenario under a policy; the same arguments give the same outcome.

    While a hall has too much heat no step is longer than `step_s`, or that of the scenario's rules. `progress` gets the
    part that is done, once a tick.
    """
    state, outcome = SimState.of(scenario), SimulationOutcome(name)
    gauges, limits_w = _gauges(state), np.full(1 + len(state.arrays.zones), np.inf)
    plant_room = PlantRoom.of(state, gauges)
    step_s = step_s if scenario.rules is None else min(step_s, scenario.rules.step_s)
    submits = [ready_s(job) for job in state.jobs]
    ticks, changes = _ticks(scenario, tick_s), 0
    queued, sampled_s, highest_w = 0, state.now_s, _highest_w(scenario)
    policy.begin(state)
    while state.now_s < scenario.end_s:
        if state.now_s >= ticks[changes]:
            changes += 1
            outcome.water_l += take_sample(outcome.samples, state, gauges, sampled_s)
            sampled_s, tariff = state.now_s, _next_tick(state, limits_w, highest_w)
            progress((state.now_s - scenario.start_s) / (scenario.end_s - scenario.start_s))
        arrived = bisect_right(submits, state.now_s, lo=queued)
        if arrived > queued:
            submit(state.world, queued, arrived)
            queued = arrived
        changed_s = min(ticks[changes], plant_room.before(policy))
        policy.decide(state)
        next_submit_s = submits[queued] if queued < len(submits) else math.inf
        until_s, now_s = min(changed_s, plant_room.after(policy)), state.now_s
        state.now_s = advance(
            state.physical or state.world, gauges, limits_w, now_s, next_submit_s, until_s, _MIN_STEP_S, step_s, _DONE_S
        )
        _count(outcome, gauges, now_s, state.now_s - now_s, tariff)
        plant_room.advance(state.now_s - now_s)
    outcome.water_l += take_sample(outcome.samples, state, gauges, sampled_s)
    close_outcome(outcome, state, gauges)
    plant_room.close(outcome)
    return outcome


def _ticks(scenario: Scenario, tick_s: float) -> list[float]:
    """Return the start, the grid, the moments at which budgets, weather and prices change, and the end."""
    start_s, end_s = scenario.start_s, scenario.end_s
    series = [*scenario.site.budgets.values(), scenario.dry_bulb_c, scenario.wet_bulb_c, scenario.price_per_mwh]
    steps = {time_s for one in series if one is not None for time_s in one.times_s if start_s < time_s < end_s}
    grid = {start_s + number * tick_s for number in range(math.ceil((end_s - start_s) / tick_s - 1e-9))}
    return [*sorted(grid | steps), end_s]


class _Tariff(NamedTuple):
    """What a MWh costs, what a kWh emits in g, and whether the site's budget is below its highest."""

    price_per_mwh: float
    carbon_g_per_kwh: float
    is_curtailed: bool


def _next_tick(state: SimState, limits_w: Floats, highest_w: float) -> _Tariff:
    """Put weather and budgets of now in force; return the tariff."""
    scenario, arrays = state.scenario, state.arrays
    weather = scenario.weather(state.now_s)
    if weather != state.weather:
        state.set_weather(weather)
    index = SiteIndex.of(arrays.site)
    moving = {zone: index.budget_at(zone, state.now_s) for zone in arrays.site.budgets}
    if not state.budgets or any(state.budgets.get(zone) != budget_w for zone, budget_w in moving.items()):
        budgets = index.budgets_at(state.now_s)
        state.set_budgets(budgets)
        limits_w[:] = [budgets.get(zone, math.inf) for zone in (arrays.site.name, *arrays.zones)]
    price, carbon = scenario.price_per_mwh, scenario.carbon_g_per_kwh
    return _Tariff(
        price.at(state.now_s) if price else 0.0,
        carbon.at(state.now_s) if carbon else 0.0,
        bool(limits_w[0] < highest_w),
    )


def _highest_w(scenario: Scenario) -> float:
    """Return the site's highest budget in the window, 0 without one."""
    site, index = scenario.site, SiteIndex.of(scenario.site)
    series = site.budgets.get(site.name)
    steps = () if series is None else (t for t in series.times_s if scenario.start_s < t < scenario.end_s)
    return max(index.budget_at(site.name, t) or 0.0 for t in (scenario.start_s, *steps))


def _count(outcome: SimulationOutcome, gauges: Gauges, now_s: float, dt_s: float, tariff: _Tariff) -> None:
    facility_w, it_w, over = gauges.totals.tolist()
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
