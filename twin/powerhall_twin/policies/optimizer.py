"""Plans as a policy of the event-driven engine: rounds of the optimizer, or one recorded plan."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from powerhall.jobs.model import Job
from powerhall.plan.plan import Plan, Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall.site.topology import Site
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import floor_slot
from powerhall_optimizer.planning.planner import make_plan
from powerhall_twin.policies.baselines import View, hold, release
from powerhall_twin.policies.engine import Scenario
from powerhall_twin.policies.plan_follower import Admission, PlanScheduler
from powerhall_twin.policies.solver_warmup import compile_solver
from powerhall_twin.site.actions import Action, Start

__all__ = ["PlannedRounds", "RecordedPlan"]

_SLOT_S: Final = 300


def _follow(scheduler: PlanScheduler, view: View) -> list[Action]:
    """Return what the plan in force asks for now."""
    stops = scheduler.ends_due(view.cluster, view.now_s)
    if stops:
        return list(stops)
    admission = Admission.of(view.cluster, view.budgets, view.weather)
    starts: list[Start] = []
    for start in scheduler.due(view.cluster, view.queue, admission, view.now_s):
        starts.append(start)
        hold(view.cluster, start)
    release(view.cluster, starts)
    return list(starts)


@dataclass(slots=True)
class RecordedPlan:
    """Follows one plan from beginning to end."""

    plan: Plan
    scheduler: PlanScheduler = field(default_factory=PlanScheduler)

    def decide(self, view: View) -> Iterable[Action]:
        """Adopt the plan at the first call, then start and stop what is due."""
        if self.scheduler.plan is None:
            return self.scheduler.take(self.plan, view.cluster) or _follow(self.scheduler, view)
        return _follow(self.scheduler, view)


@dataclass(slots=True)
class PlannedRounds:
    """Plans anew every `round_s` seconds of simulated time, each time for at most `solve_s` seconds of real time."""

    scenario: Scenario
    round_s: float = 1800.0
    horizon_s: float = 6 * 3600.0
    solve_s: float = 2.0
    settings: RoundSettings = field(default_factory=lambda: RoundSettings(target_gap=0.02))
    scheduler: PlanScheduler = field(default_factory=PlanScheduler)
    next_s: float = 0.0
    gaps: list[float] = field(default_factory=list)
    solved_s: float = 0.0

    def decide(self, view: View) -> Iterable[Action]:
        """Run a round when it is due, else follow the plan in force."""
        if view.now_s >= self.next_s:
            while self.next_s <= view.now_s:
                self.next_s = (self.next_s or view.now_s) + self.round_s
            actions = self._round(view)
            if actions:
                return actions
        return _follow(self.scheduler, view)

    def snapshot(self, site: Site, jobs: tuple[Job, ...], now_s: float) -> Snapshot:
        """Return what a round would see; of weather the hottest moment of a slot counts."""
        start_s = floor_slot(now_s, _SLOT_S)
        grid = start_s, _SLOT_S, max(1, int(self.horizon_s // _SLOT_S))
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

    def _round(self, view: View) -> Sequence[Action]:
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
                self.solve_s,
                created_s=snapshot.start_s,
                log=Log(quiet=True),
                previous=self.scheduler.plan,
            )
        except PowerhallError as error:
            raise PowerhallError(f"round at {snapshot.start_s}: {error}") from None
        self.solved_s += time.monotonic() - began
        self.gaps.append(plan.gap)
        return self.scheduler.take(plan, view.cluster)
