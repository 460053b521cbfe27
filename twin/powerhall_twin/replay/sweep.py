"""A grid of budgets, policies and drawn workloads; the same grid gives the same rows, wherever it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.policy import PolicyInputs, RoundTiming
from powerhall_twin.policies.registry import policy_kind
from powerhall_twin.replay.calls import Calls
from powerhall_twin.replay.figures import PolicyFigures, figures_of
from powerhall_twin.replay.grow import resampled_jobs
from powerhall_twin.replay.kept_rows import KeptRows, map_kept
from powerhall_twin.replay.replay import ReplayCase, with_change, with_failures

__all__ = ["SweepPoint", "SweepRow", "run_point", "run_sweep", "sweep_points"]


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One run: what-if changes such as "grid=-20%" ("" for none), a policy, a seed (0: the jobs as they are)."""

    change: str
    policy: str
    seed: int


class SweepRow(msgspec.Struct, frozen=True):
    """A point and its figures."""

    change: str
    policy: str
    seed: int
    figures: PolicyFigures

    @property
    def point(self) -> SweepPoint:
        """Return the point."""
        return SweepPoint(self.change, self.policy, self.seed)


def sweep_points(changes: Sequence[str], policies: Sequence[str], seeds: Sequence[int]) -> list[SweepPoint]:
    """Return the grid, in order; what is named twice is in it once."""
    points = (SweepPoint(change, policy, seed) for change in changes for policy in policies for seed in seeds)
    return list(dict.fromkeys(points))


def run_point(shared: tuple[ReplayCase, RoundTiming], point: SweepPoint) -> SweepRow:
    """Run one point."""
    case, timing = shared
    changed = with_change(case, point.change) if point.change else case
    changed = changed if point.seed == 0 else with_failures(changed, point.seed)
    jobs = changed.scenario.jobs if point.seed == 0 else resampled_jobs(changed.scenario.jobs, 1.0, point.seed)
    scenario = replace(changed.scenario, jobs=jobs)
    inputs = PolicyInputs(scenario, timing)
    outcome = simulate(scenario, policy_kind(point.policy, inputs).open(inputs), point.policy)
    return SweepRow(point.change, point.policy, point.seed, figures_of(outcome))


def run_sweep(
    case: ReplayCase,
    points: Sequence[SweepPoint],
    timing: RoundTiming,
    calls: Calls,
    progress: Callable[[str, float], None] = lambda _name, _part: None,
    *,
    kept: KeptRows[SweepRow] | None = None,
) -> list[SweepRow]:
    """Run all points and return their rows in order; those that are kept already are not run again."""
    return map_kept(calls, run_point, (case, timing), points, kept=kept, progress=partial(progress, "sweep"))
