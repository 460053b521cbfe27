"""The loop over the events of a scenario: the power is constant from one event to the next.

Events are submissions, ends of jobs, changes of weather, budgets and prices, and the ticks of a grid. The
draw and speed of a job come from `node_power.draw_of`, not from the planning figures of the policy.
"""

import math
from collections.abc import Callable

from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.engine.plant_room import PlantRoom
from powerhall_twin.engine.policy import Policy
from powerhall_twin.engine.simulation import Simulation
from powerhall_twin.site.scenario import Scenario

__all__ = ["simulate"]


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
    sim = Simulation.of(scenario, name, step_s)
    state, plant_room = sim.state, PlantRoom.of(sim.state, sim.gauges)
    ticks, changes = _ticks(scenario, tick_s), 0
    policy.begin(state)
    while state.now_s < scenario.end_s:
        if state.now_s >= ticks[changes]:
            changes += 1
            sim.sample()
            sim.put_moment()
            progress((state.now_s - scenario.start_s) / (scenario.end_s - scenario.start_s))
        sim.arrive()
        changed_s = min(ticks[changes], plant_room.before(policy))
        policy.decide(state)
        plant_room.advance(sim.advance(min(changed_s, plant_room.after(policy))))
    sim.close()
    plant_room.close(sim.outcome)
    return sim.outcome


def _ticks(scenario: Scenario, tick_s: float) -> list[float]:
    """Return the start, the grid, the moments at which budgets, weather and prices change, and the end."""
    start_s, end_s = scenario.start_s, scenario.end_s
    series = [*scenario.site.budgets.values(), scenario.dry_bulb_c, scenario.wet_bulb_c, scenario.price_per_mwh]
    steps = {time_s for one in series if one is not None for time_s in one.times_s if start_s < time_s < end_s}
    grid = {start_s + number * tick_s for number in range(math.ceil((end_s - start_s) / tick_s - 1e-9))}
    return [*sorted(grid | steps), end_s]
