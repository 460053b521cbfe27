"""A site whose power is measured: simulated GPUs with transients and caps of their own in the place of the tables.

The demo and the trial of a shed move it in steps. Their GPUs, which agents and cappers see, give the power of each node
and the speed of each job. All else is the engine's: jobs, budgets, losses, plants, heat of halls, limits and totals.
"""

from dataclasses import dataclass

import numpy as np

from powerhall.physics.cooling import HallLoad, media
from powerhall.site.topology import Site
from powerhall_twin.engine.columns import DURATION, GPUS
from powerhall_twin.engine.hall_power import hall_parts
from powerhall_twin.engine.job_arrays import put_measured
from powerhall_twin.engine.meter import MEDIA
from powerhall_twin.engine.placed_runs import PlacedRuns
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.engine.simulation import Simulation
from powerhall_twin.engine.site_arrays import NW, Floats
from powerhall_twin.site.job_behaviour import behaviour_of, speed_at
from powerhall_twin.site.scenario import Scenario
from powerhall_twin.site.simulated_nodes import INLET_C, SimulatedNodes

__all__ = ["MeasuredSite", "Reading", "compile_measured", "hall_loads"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the meters show of a step: power of the site in W, loads of the halls, whether any limit was exceeded."""

    facility_w: float
    halls: dict[str, HallLoad]
    over: bool


@dataclass(slots=True)
class MeasuredSite:
    """The running site, its simulated nodes and the GPUs of its runs."""

    sim: Simulation
    nodes: SimulatedNodes
    placed: PlacedRuns

    @classmethod
    def of(cls, scenario: Scenario, name: str, nodes: SimulatedNodes) -> "MeasuredSite":
        """Return a scenario at its start on these nodes."""
        compile_measured(scenario)
        return cls(Simulation.of(scenario, name), nodes, PlacedRuns.of(scenario.site))

    @property
    def state(self) -> SimState:
        """The engine's state."""
        return self.sim.state

    @property
    def now_s(self) -> float:
        """The site's time."""
        return self.sim.state.now_s

    @property
    def site(self) -> Site:
        """The site file in force."""
        return self.sim.state.arrays.site

    def put_moment(self) -> None:
        """Put weather and budgets of now in force, and queue what was submitted."""
        self.sim.put_moment()
        self.sim.arrive()

    def put_loads(self, *, limits: bool = True) -> None:
        """Give every GPU the load of its job, and its power limit; without `limits` cappers set those."""
        self.placed.follow(self.state)
        excess_k = self.sim.gauges.excess_k.tolist()
        inlet_c = {hall.zone: INLET_C + excess_k[number] for number, hall in enumerate(self.site.halls)}
        self.nodes.apply(self.placed.runs.values(), self.now_s, inlet_c, limits=limits)

    def read(self, dt_s: float) -> Reading:
        """Count a step in which the nodes have moved on by `dt_s`, with their power at its end; end what is done."""
        node_w = np.array([self.nodes.power_w(name) for name in self.state.arrays.node_names])
        put_measured(self.state.world, np.rint(node_w * NW).astype(np.int64), self._speeds(), self.now_s)
        halls = hall_loads(self.state)
        self.sim.advance(self.now_s + dt_s, dt_s)
        self.placed.follow(self.state)
        facility_w, _, over = self.sim.gauges.totals.tolist()
        return Reading(facility_w, halls, bool(over))

    def _speeds(self) -> Floats:
        """Return the speed of every job by the clock of its slowest node."""
        speeds = np.ones(len(self.state.jobs))
        for job_id, run in self.placed.runs.items():
            slowest = min(self.nodes.clock_ratio(part.node, part.gpus[0]) for part in run.slices)
            speeds[self.state.number_of[job_id]] = speed_at(slowest, behaviour_of(run.job.job_class).clock_share)
        return speeds

    def work_gpu_s(self) -> float:
        """Return the work of all jobs until now in GPU seconds at full speed, less what stops lost."""
        state = self.state
        left_s = np.array([state.left_s(j) for j in range(len(state.jobs))])
        jobs = state.world.jobs
        return float((jobs.ints[GPUS] * (jobs.floats[DURATION] - left_s)).sum())


def hall_loads(state: SimState) -> dict[str, HallLoad]:
    """Return the load of every hall at the power of now."""
    world, halls = state.physical or state.world, state.arrays.site.halls
    parts = np.zeros((len(halls), 9))
    hall_parts(world.layout, world.plants, world.draw.pool_nw, parts)
    found = {}
    for hall, (it_w, loss_w, cooling_w, *rest) in zip(halls, parts.tolist(), strict=True):
        heat = {medium: rest[MEDIA.index(medium)] for medium in media(hall)}
        capacity = {medium: rest[3 + MEDIA.index(medium)] for medium in media(hall)}
        found[hall.zone] = HallLoad(it_w, heat, capacity, cooling_w, loss_w)
    return found


def compile_measured(scenario: Scenario) -> None:
    """Call every kernel of a measured site on a copy, so that none is compiled, or read from disk, at a bad moment."""
    sim = Simulation.of(scenario, "compile")
    state = sim.state
    sim.put_moment()
    sim.arrive()
    nodes, power_w = {state.arrays.node_names[0]: 1}, state.arrays.types[0].modes[0].gpu_power_w
    node_nw = np.zeros(len(state.arrays.node_names), np.int64)
    put_measured(state.world, node_nw, np.ones(len(state.jobs)), state.now_s)
    if state.jobs and state.has_room(nodes, power_w):
        state.start(0, nodes, 0, power_w)
        state.set_mode(0, 0, power_w)
        state.stop(0)
    hall_loads(state)
    sim.advance(state.now_s, 0.0)
