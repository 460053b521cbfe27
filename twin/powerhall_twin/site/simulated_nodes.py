"""The simulated nodes that agents measure: one state file per node, whose GPUs carry the load and limits of the jobs.

The physics are those of the agent's simulated GPUs. Load and limits are constant between two ticks, so one exact step
of the first-order lags covers a tick of any length.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall_agent.simulate import layout as at
from powerhall_agent.simulate.physics import _step as step_gpu
from powerhall_agent.simulate.publish import publish
from powerhall_agent.simulate.state import StateFile
from powerhall_twin.site.job_behaviour import behaviour_of
from powerhall_twin.site.node_power import NodeModel, limit_of, node_model
from powerhall_twin.site.placed_runs import PlacedRun

__all__ = ["INLET_C", "SimulatedNodes", "advance_nodes", "create_nodes", "state_path"]

INLET_C: Final = 28.0
"""Temperature of the coolant or air that enters a node while its hall keeps the set point."""
_NO_EVENTS: Final = ("nvmlEventSetWait_v2", "nvmlSystemEventSetCreate")


def state_path(folder: Path, node: str) -> Path:
    """Return the state file of a node."""
    return folder / f"{node}.gpus"


def create_nodes(site: Site, folder: Path, seed: int) -> None:
    """Make the state files of all nodes of a site, idle.

    Their driver has no event sets, as old drivers do: one process serves many nodes, and a waiting thread per node
    would only cost time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for rack in site.racks():
        kind = site.node_types[rack.node_type]
        for node in rack.nodes:
            number += 1
            state = StateFile.create(
                state_path(folder, node),
                gpus=kind.gpus,
                model_name=kind.gpu,
                node=node,
                seed=seed * 1000 + number,
                inlet_c=INLET_C,
            )
            state.ints[at.H_WORLD_PID] = 1
            for name in _NO_EVENTS:
                state.ints[at.H_MISSING_SYMBOLS] |= 1 << at.OPTIONAL_SYMBOLS.index(name)


def advance_nodes(states: list[StateFile], dt_s: float) -> None:
    """Advance the physics of these nodes by `dt_s` seconds and publish the values that NVML returns."""
    for state in states:
        ints, doubles = state.ints, state.doubles
        for gpu in range(state.gpus):
            base = at.HEADER_WORDS + at.GPU_WORDS * gpu
            publish(ints, doubles, base, step_gpu(doubles, base, dt_s))
        ints[at.H_SIM_TIME_NS] += int(dt_s * 1e9)
        ints[at.H_STEPS] += 1


@dataclass(slots=True)
class SimulatedNodes:
    """Sets loads and limits of the nodes, and reads their power, clocks and energy."""

    site: Site
    states: dict[str, StateFile]
    models: dict[str, NodeModel] = field(default_factory=dict)

    @classmethod
    def open(cls, site: Site, folder: Path) -> "SimulatedNodes":
        """Map the state files of a site."""
        nodes = cls(site, {})
        for rack in site.racks():
            model = node_model(site.node_types[rack.node_type])
            assert model is not None, "create_nodes refuses GPUs that cannot be simulated"
            for node in rack.nodes:
                nodes.states[node] = StateFile.open(state_path(folder, node))
                nodes.models[node] = model
        return nodes

    def apply(
        self, runs: Iterable[PlacedRun], now_s: float, inlet_c: Mapping[str, float], *, limits: bool = True
    ) -> None:
        """Set the load and limit of every GPU from the job on it; an idle GPU has no load and the default limit.

        `inlet_c` is by hall. Without `limits` the limits are left alone: cappers set them.
        """
        hall_of = SiteIndex.of(self.site).hall_of
        wanted: dict[tuple[str, int], tuple[float, float, float]] = {}
        for run in runs:
            behaviour = behaviour_of(run.job.job_class)
            util = behaviour.util_at(run.job.job_id, now_s - run.start_s)
            for part in run.slices:
                gpu = self.models[part.node].gpu
                values = util, limit_of(run.mode, gpu), behaviour.memory * gpu.mem_total_bytes
                wanted.update(dict.fromkeys(((part.node, g) for g in part.gpus), values))
        for node, state in self.states.items():
            gpu, d = self.models[node].gpu, state.doubles
            idle = 0.0, gpu.limit_default_w, 0.0
            inlet = inlet_c[hall_of(node).zone]
            for number in range(state.gpus):
                base = state.base(number)
                util, limit_w, memory = wanted.get((node, number), idle)
                d[base + at.C_UTIL], d[base + at.C_MEM_USED] = util, memory
                if limits:
                    d[base + at.C_LIMIT_W] = limit_w
                d[base + at.C_MEM_UTIL], d[base + at.C_INLET_C] = 0.6 * util, inlet

    def power_w(self, node: str) -> float:
        """Return a node's power now, in W."""
        state = self.states[node]
        gpus_w = sum(state.doubles[state.base(gpu) + at.C_POWER_W] for gpu in range(state.gpus))
        return self.models[node].power_w(gpus_w)

    def clock_ratio(self, node: str, gpu: int) -> float:
        """Return a GPU's clock over its highest clock."""
        state = self.states[node]
        base = state.base(gpu)
        return state.doubles[base + at.C_CLOCK_MHZ] / state.doubles[base + at.C_CLOCK_MAX_MHZ]

    def hottest_c(self, node: str) -> float:
        """Return the temperature of a node's hottest GPU."""
        state = self.states[node]
        return max(state.doubles[state.base(gpu) + at.C_TEMP_C] for gpu in range(state.gpus))

    def energy_j(self, node: str, gpu: int) -> float:
        """Return the energy that a GPU has taken since the start."""
        state = self.states[node]
        return state.doubles[state.base(gpu) + at.C_ENERGY_MJ] / 1000.0

    def gpu_energy_j(self) -> float:
        """Return the energy that all GPUs have taken since the start."""
        return (
            sum(
                state.doubles[state.base(gpu) + at.C_ENERGY_MJ]
                for state in self.states.values()
                for gpu in range(state.gpus)
            )
            / 1000.0
        )
