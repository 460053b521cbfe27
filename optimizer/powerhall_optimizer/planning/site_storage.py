"""Storage in a round: capacity for running jobs before planning, then the cheapest dispatch for the final plan.

Linear programs run in a child process with a deadline. A failure there is logged, and storage keeps its previous
dispatch, at worst idle.
"""

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall.site.index import SiteIndex
from powerhall_optimizer.physics.plan_loads import loads_of
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.placer import PlacedSchedule
from powerhall_optimizer.planning.assemble import assignments
from powerhall_optimizer.problem.arrays import Ints, Schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem
from powerhall_optimizer.problem.usage import usage_of
from powerhall_optimizer.solve.child_process import guarded
from powerhall_optimizer.storage.model import Ceiling, Dispatch, build_storage_model, plant_slopes, with_dispatch

__all__ = ["SiteStorage", "running_usage"]

Floats = npt.NDArray[np.float64]
_PROGRAM_S = 20.0


def running_usage(built: BuiltProblem) -> Ints:
    """Return the least usage of the running jobs: each in its lowest-power mode."""
    schedule = Schedule.empty(built.problem.jobs)
    for number, job in enumerate(built.jobs):
        options = built.problem.options_of(number)
        if job.state == "running" and len(options):
            schedule.option[number] = min(options, key=lambda o: built.choices[o].gpu_power_w)
            schedule.start[number] = 0
    return usage_of(built.problem, schedule)


class SiteStorage:
    """The storage of one site in a round: its model, and its dispatch so far (for the running jobs)."""

    def __init__(
        self, snapshot: Snapshot, built: BuiltProblem, conditions: SiteConditions, solver: str, log: Log
    ) -> None:
        self.snapshot = snapshot
        self.model = build_storage_model(snapshot, built, conditions)
        self.solver = solver
        self.log = log
        self.dispatch = self.model.idle()

    def with_capacities(self, built: BuiltProblem, dispatch: Dispatch | None) -> BuiltProblem:
        """Return the problem with the capacities that a dispatch leaves (None: the one for the running jobs)."""
        return with_dispatch(built, self.model, self.dispatch if dispatch is None else dispatch)

    def with_room_for_running_jobs(self, built: BuiltProblem) -> BuiltProblem:
        """Dispatch storage for the running jobs, and return the problem with the resulting capacities."""
        if not self.model.units:
            return built
        from powerhall_optimizer.planning.storage_alternation import covering_dispatch

        problem, model, solver = built.problem, self.model, self.solver
        usage = running_usage(built)
        found = self._guarded("cover", lambda _send: covering_dispatch(problem, model, usage, solver))
        if found is not None and model.meets_end_content(found):
            self.dispatch = found
        return self.with_capacities(built, None)

    def final_dispatch(self, built: BuiltProblem, placed: PlacedSchedule, dispatch: Dispatch | None) -> Dispatch:
        """Return the cheapest dispatch for the placed jobs, without export and without cooling beyond the heat."""
        before = self.dispatch if dispatch is None else dispatch
        if not self.model.units:
            return before
        from powerhall_optimizer.planning.storage_alternation import settled_dispatch
        from powerhall_optimizer.storage.program import Program

        problem, model, solver = built.problem, self.model, self.solver
        usage = usage_of(problem, placed.schedule)
        ceilings = self._ceilings(built, placed)
        program = Program(model, solver, ceilings)
        found = self._guarded("settle", lambda _send: settled_dispatch(problem, program, usage))
        return self._trimmed(before, ceilings) if found is None else found

    def _trimmed(self, dispatch: Dispatch, ceilings: list[Ceiling]) -> Dispatch:
        """Return a dispatch that delivers no more than its ceilings allow; the rest stays in storage."""
        power_w = [np.array(watts, float) for watts in dispatch]
        for ceiling in ceilings:
            given = sum(share[0] * np.maximum(power_w[k], 0.0) for k, share in ceiling.shares.items())
            taken = sum(share[1] * np.maximum(-power_w[k], 0.0) for k, share in ceiling.shares.items())
            part = np.clip((ceiling.most_w + taken) / np.maximum(given, 1e-9), 0.0, 1.0)
            for k in ceiling.shares:
                power_w[k] = np.where(power_w[k] > 0, power_w[k] * part, power_w[k])
        return self.model.in_whole_watts(power_w)

    def _ceilings(self, built: BuiltProblem, placed: PlacedSchedule) -> list[Ceiling]:
        """Return the heat of every hall with cooling storage, and the power at the meter without storage."""
        s = self.snapshot
        loads = loads_of(s, assignments(s, built, placed))
        found: list[Ceiling] = []
        meter: dict[int, tuple[Floats, Floats]] = {}
        places: dict[tuple[str, str], dict[int, tuple[Floats, Floats]]] = {}
        one, none = np.ones(s.slots), np.zeros(s.slots)
        weather = SiteConditions(s).weather
        for number, store in enumerate(self.model.units):
            storage = store.storage
            if storage.kind == "battery":
                meter[number] = one, one
                continue
            places.setdefault((storage.zone, storage.medium), {})[number] = one, one
            slopes = plant_slopes(SiteIndex.of(s.site).halls[storage.zone], storage.medium, weather)
            meter[number] = np.array([steep for _, _, steep in slopes]), none
        for (hall, medium), shares in places.items():
            found.append(Ceiling(shares, loads.halls[hall].heat_w[medium] - len(shares)))
        found.append(Ceiling(meter, loads.zone_w[s.site.name] - len(meter)))
        return found

    def _guarded(self, name: str, call: Callable[[Callable[[Dispatch], None]], Dispatch]) -> Dispatch | None:
        try:
            end_s = time.monotonic() + _PROGRAM_S
            return guarded(call, deadline_s=end_s, grace_s=_PROGRAM_S, stop=lambda: False)
        except (PowerhallError, OSError) as error:  # a fault in a solver must not leave the site without a plan
            self.log.error("stage_failed", stage=name, reason=error)
            return None
