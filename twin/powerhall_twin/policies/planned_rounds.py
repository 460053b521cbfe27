"""Rounds of the optimizer as a policy: the site is planned anew at fixed intervals and the plan is followed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from powerhall.jobs.model import Job
from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall.site.topology import Site
from powerhall_optimizer.inputs.horizon import floor_slot
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.round.single_site import still_planned
from powerhall_twin.engine.columns import DONE, FUTURE, STATUS
from powerhall_twin.engine.sim_state import SimState
from powerhall_twin.policies.plan_runner import PlanRunner
from powerhall_twin.policies.policy import RoundTiming
from powerhall_twin.policies.solver_warmup import compile_solver
from powerhall_twin.site.scenario import Scenario

__all__ = ["PlannedRounds"]


@dataclass(slots=True)
class PlannedRounds:
    """Runs a round of the optimizer when one is due and follows its plan in between."""

    scenario: Scenario
    timing: RoundTiming = field(default_factory=RoundTiming)
    settings: RoundSettings = field(default_factory=lambda: RoundSettings(target_gap=0.02))
    runner: PlanRunner = field(default_factory=PlanRunner)
    next_s: float = 0.0
    last_s: float = 0.0
    seen: tuple[int, int, int] = (0, 0, 0)
    gaps: list[float] = field(default_factory=list)
    solved_s: float = 0.0

    def begin(self, state: SimState) -> None:
        """Nothing to prepare: the first event runs the first round."""

    def decide(self, state: SimState) -> None:
        """Run a round when it is due, and follow the plan in force."""
        is_due = state.now_s >= self.next_s
        while self.next_s <= state.now_s:
            self.next_s = (self.next_s or state.now_s) + self.timing.round_s
        if is_due or (state.now_s - self.last_s >= self.timing.event_s and self._events(state) != self.seen):
            self._round(state)
            self.last_s, self.seen = state.now_s, self._events(state)
        self.runner.follow(state)

    @staticmethod
    def _events(state: SimState) -> tuple[int, int, int]:
        """Return how many jobs were submitted, how many ended, and how often nodes failed or were repaired."""
        status = state.world.jobs.ints[STATUS]
        return int((status != FUTURE).sum()), int((status == DONE).sum()), state.out_of_use

    def snapshot(self, site: Site, jobs: tuple[Job, ...], now_s: float) -> Snapshot:
        """Return the input of a round; the weather of a slot is its hottest moment."""
        slot_s = self.settings.slot_s
        start_s = floor_slot(now_s, slot_s)
        grid = start_s, slot_s, max(1, int(self.timing.horizon_s // slot_s))
        dry, wet, price = self.scenario.dry_bulb_c, self.scenario.wet_bulb_c, self.scenario.price_per_mwh
        return Snapshot(
            taken_s=start_s,
            start_s=start_s,
            slot_s=slot_s,
            objective=self.settings.objective,
            slots=grid[2],
            site=site,
            jobs=jobs,
            dry_bulb_c=() if dry is None else dry.slots(*grid, "max"),
            wet_bulb_c=() if wet is None else wet.slots(*grid, "max"),
            price_per_mwh=() if price is None else price.slots(*grid, "mean"),
        )

    def planned_stores(self, now_s: float, /) -> tuple[Mapping[str, float] | None, float]:
        """Return what the newest plan has for now."""
        return self.runner.planned_stores(now_s)

    def _round(self, state: SimState) -> None:
        jobs = state.as_jobs()
        if not jobs:
            return
        snapshot = self.snapshot(state.arrays.site, jobs, state.now_s)
        snapshot = msgspec.structs.replace(
            snapshot,
            planned=still_planned(self.runner.plan, snapshot),
            stored_j=dict(state.stored_j),
            down_nodes=state.nodes_down,
            off_nodes=state.nodes_off,
            held=state.held_gpus(),
        )
        if not self.gaps:
            compile_solver(snapshot)
        began = time.monotonic()
        try:
            plan = make_plan(
                snapshot,
                self.settings,
                self.timing.solve_s,
                created_s=snapshot.start_s,
                log=Log(quiet=True),
                previous=self.runner.plan,
            )
        except PowerhallError as error:
            raise PowerhallError(f"round at {snapshot.start_s}: {error}") from None
        self.solved_s += time.monotonic() - began
        self.gaps.append(plan.gap)
        self.runner.take(plan, state)
