"""Rounds of the optimizer as a policy: the site is planned anew at fixed intervals and the plan is followed."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from powerhall.jobs.model import Job
from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall.site.topology import Site
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import floor_slot
from powerhall_optimizer.planning.planner import make_plan
from powerhall_twin.policies.plan_follower import PlanScheduler, follow
from powerhall_twin.policies.policy import PolicyView, RoundTiming
from powerhall_twin.policies.scenario import Scenario
from powerhall_twin.policies.solver_warmup import compile_solver
from powerhall_twin.site.actions import Action

__all__ = ["PlannedRounds"]

_SLOT_S: Final = 300


@dataclass(slots=True)
class PlannedRounds:
    """Runs a round of the optimizer when one is due and follows its plan in between."""

    scenario: Scenario
    timing: RoundTiming = field(default_factory=RoundTiming)
    settings: RoundSettings = field(default_factory=lambda: RoundSettings(target_gap=0.02))
    scheduler: PlanScheduler = field(default_factory=PlanScheduler)
    next_s: float = 0.0
    gaps: list[float] = field(default_factory=list)
    solved_s: float = 0.0

    def decide(self, view: PolicyView) -> Iterable[Action]:
        """Run a round when it is due, else follow the plan in force."""
        if view.now_s >= self.next_s:
            while self.next_s <= view.now_s:
                self.next_s = (self.next_s or view.now_s) + self.timing.round_s
            actions = self._round(view)
            if actions:
                return actions
        return follow(self.scheduler, view)

    def snapshot(self, site: Site, jobs: tuple[Job, ...], now_s: float) -> Snapshot:
        """Return the input of a round; the weather of a slot is its hottest moment."""
        start_s = floor_slot(now_s, _SLOT_S)
        grid = start_s, _SLOT_S, max(1, int(self.timing.horizon_s // _SLOT_S))
        dry, wet, price = self.scenario.dry_bulb_c, self.scenario.wet_bulb_c, self.scenario.price_per_mwh
        return Snapshot(
            taken_s=start_s,
            start_s=start_s,
            slot_s=_SLOT_S,
            slots=grid[2],
            site=site,
            jobs=jobs,
            dry_bulb_c=() if dry is None else dry.slots(*grid, "max"),
            wet_bulb_c=() if wet is None else wet.slots(*grid, "max"),
            price_per_mwh=() if price is None else price.slots(*grid, "mean"),
        )

    def _round(self, view: PolicyView) -> Sequence[Action]:
        jobs = view.queue.as_jobs(view.cluster, view.now_s)
        if not jobs:
            return ()
        snapshot = self.snapshot(view.site, jobs, view.now_s)
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
                previous=self.scheduler.plan,
            )
        except PowerhallError as error:
            raise PowerhallError(f"round at {snapshot.start_s}: {error}") from None
        self.solved_s += time.monotonic() - began
        self.gaps.append(plan.gap)
        return self.scheduler.take(plan, view.cluster)
