"""The numbers of the GPUs that the engine's runs hold, for drivers and agents."""

from dataclasses import dataclass, field, replace

from powerhall.site.topology import Site
from powerhall_twin.engine.columns import BEGAN, HALL, KIND, MODE, NODE_COUNT, NODE_FIRST, STOPS
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.site.placed_runs import FreeGpus, PlacedRun

__all__ = ["PlacedRuns"]


@dataclass(slots=True)
class PlacedRuns:
    """The running jobs by id; a job that was stopped and runs again is another run, on other GPUs."""

    free: FreeGpus
    runs: dict[str, PlacedRun] = field(default_factory=dict)
    stops: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, site: Site) -> "PlacedRuns":
        """Return those of an idle site."""
        return cls(FreeGpus.of(site))

    def follow(self, state: SimState) -> None:
        """Take out runs that are over, and number the GPUs of new ones."""
        jobs, arrays = state.world.jobs, state.arrays
        running = {state.jobs[j].job_id: j for j in state.running.tolist()}
        for job_id in list(self.runs):
            if job_id not in running or self.stops[job_id] != jobs.ints[STOPS, running[job_id]]:
                self.free.give_back(self.runs.pop(job_id).slices)
        for job_id, j in running.items():
            mode = arrays.types[jobs.ints[KIND, j]].modes[jobs.ints[MODE, j]]
            run = self.runs.get(job_id)
            if run is None:
                self.runs[job_id] = self._placed(state, j, job_id)
            elif run.mode != mode:
                self.runs[job_id] = replace(run, mode=mode)

    def _placed(self, state: SimState, j: int, job_id: str) -> PlacedRun:
        jobs, arrays = state.world.jobs, state.arrays
        first = int(jobs.ints[NODE_FIRST, j])
        nodes, counts = jobs.pool[:, first : first + int(jobs.ints[NODE_COUNT, j])].tolist()
        slices = self.free.take({arrays.node_names[n]: count for n, count in zip(nodes, counts, strict=True)})
        assert slices is not None, "the engine starts jobs on free GPUs only"
        self.stops[job_id] = int(jobs.ints[STOPS, j])
        mode = arrays.types[jobs.ints[KIND, j]].modes[jobs.ints[MODE, j]]
        hall = arrays.site.halls[jobs.ints[HALL, j]].zone
        return PlacedRun(state.jobs[j], hall, mode, slices, float(jobs.floats[BEGAN, j]))
