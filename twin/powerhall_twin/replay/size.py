"""How many nodes fit, and how much battery, tank or cooling a site needs, at a service level under its budgets."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
from scipy.special import stdtrit

from powerhall.site.index import SiteIndex
from powerhall_twin.engine.outcome import SimulationOutcome
from powerhall_twin.engine.simulate import simulate
from powerhall_twin.policies.policy import PolicyInputs, RoundTiming
from powerhall_twin.policies.registry import policy_kind
from powerhall_twin.replay.calls import Calls, Here
from powerhall_twin.replay.grow import grown_scenario, node_count
from powerhall_twin.replay.kept_rows import KeptRows, map_kept
from powerhall_twin.replay.sized_part import SizedPart
from powerhall_twin.site.scenario import Scenario

__all__ = ["SizePoint", "SizedSeed", "Sizing", "SizingGoal", "interval", "least_of", "most_nodes", "size"]


class SizingGoal(msgspec.Struct, frozen=True):
    """What a size must meet: at most this share of deadlines missed, each `slack` times a job's duration."""

    misses: float = 0.02
    slack: float = 2.0
    most_factor: float = 3.0
    """The largest size that is tried, over the site's own."""
    resolution: float = 0.01
    """Sizes nearer than this share are not told apart."""


class Sizing(msgspec.Struct, frozen=True):
    """The most nodes, or the least of a part, per seed.

    `low` and `high` are the 95 % interval of the mean (Student's t), None for one seed. `sizes` and `mean` are in
    `unit`; a seed for which no size was enough is None there, and `mean` then too.
    """

    policy: str
    nodes: tuple[int, ...]
    misses: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None
    budget_use: float
    """Mean of the peak power at these sizes over the site's budget at the start, 0 without a budget."""
    of: str = "nodes"
    unit: str = "nodes"
    own: float = 0.0
    """What the site has."""
    sizes: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class SizePoint:
    """One search: a policy and a seed."""

    policy: str
    seed: int


class SizedSeed(msgspec.Struct, frozen=True):
    """What one search found: nodes or factor of the part (None: none is enough), deadlines missed, peak power in W."""

    policy: str
    seed: int
    found: float | None
    misses: float = 0.0
    peak_w: float = 0.0

    @property
    def point(self) -> SizePoint:
        """Return the search."""
        return SizePoint(self.policy, self.seed)


_STEPS = 16


def interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95 % confidence interval of the mean by Student's t; (None, None) of less than two values."""
    if len(values) < 2:
        return None, None
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values)
    return mean - half, mean + half


def most_nodes(
    scenario: Scenario, policy: str, goal: SizingGoal, seed: int, timing: RoundTiming
) -> tuple[int, SimulationOutcome | None]:
    """Return the most nodes that meet the goal, 0 where none does, and the outcome at that size.

    Sizes are tried from the largest down, a sixteenth of it at a time, and then by bisection above the first that
    meets the goal: a small site may fail where a larger one does not, since its jobs wait for each other.
    """
    own = node_count(scenario.site)

    def meets(nodes: int) -> SimulationOutcome | None:
        return _run(grown_scenario(scenario, nodes, seed, goal.slack), policy, goal, timing)

    high = max(1, round(own * goal.most_factor))
    low, step, found = high, max(1, high // _STEPS), meets(high)
    while found is None and low > 1:
        high, low = low - 1, max(1, low - step)
        found = meets(low)
    while found is not None and high - low > max(1, goal.resolution * own):
        nodes = (low + high + 1) // 2
        outcome = meets(nodes)
        low, high, found = (low, nodes - 1, found) if outcome is None else (nodes, high, outcome)
    return (0 if found is None else low), found


def least_of(
    part: SizedPart, scenario: Scenario, policy: str, goal: SizingGoal, seed: int, *, timing: RoundTiming
) -> tuple[float | None, SimulationOutcome | None]:
    """Return the least factor of a part that meets the goal, None where none does, and the outcome at that size.

    Sizes are tried from none up, a sixteenth of the largest at a time, and then by bisection below the first that meets
    the goal: a larger store may fail where a smaller one does not, since it takes power to fill.
    """
    drawn = grown_scenario(scenario, node_count(scenario.site), seed, goal.slack)

    def meets(factor: float) -> SimulationOutcome | None:
        return _run(replace(drawn, site=part.scaled(drawn.site, factor)), policy, goal, timing)

    step = goal.most_factor / _STEPS
    low, high, found = 0.0, 0.0, None if part.kind == "cooling" else meets(0.0)
    while found is None and high < goal.most_factor:
        low, high = high, min(goal.most_factor, high + step)
        found = meets(high)
    while found is not None and high - low > max(goal.resolution, 1e-3):
        factor = (low + high) / 2
        outcome = meets(factor)
        low, high, found = (factor, high, found) if outcome is None else (low, factor, outcome)
    return (None if found is None else high), found


def _run(case: Scenario, policy: str, goal: SizingGoal, timing: RoundTiming) -> SimulationOutcome | None:
    """Return the outcome where it meets the goal."""
    inputs = PolicyInputs(case, timing)
    outcome = simulate(case, policy_kind(policy, inputs).open(inputs), policy)
    meets = outcome.over_budget_s == 0 and outcome.deadlines_missed <= goal.misses * outcome.deadlines
    return outcome if meets else None


_Question = tuple[Scenario, SizedPart | None, SizingGoal, RoundTiming]


def _search(question: _Question, point: SizePoint) -> SizedSeed:
    scenario, part, goal, timing = question
    found: float | None
    if part is None:
        found, outcome = most_nodes(scenario, point.policy, goal, point.seed, timing)
    else:
        found, outcome = least_of(part, scenario, point.policy, goal, point.seed, timing=timing)
    if outcome is None:
        return SizedSeed(point.policy, point.seed, found)
    misses = outcome.deadlines_missed / max(1, outcome.deadlines)
    return SizedSeed(point.policy, point.seed, found, misses, outcome.peak_w)


def size(
    scenario: Scenario,
    policies: Sequence[str],
    goal: SizingGoal,
    seeds: Sequence[int],
    timing: RoundTiming,
    *,
    part: SizedPart | None = None,
    calls: Calls | None = None,
    kept: KeptRows[SizedSeed] | None = None,
    progress: Callable[[str, float], None] = lambda _name, _part: None,
) -> list[Sizing]:
    """Search the most nodes, or the least of a part, for each policy and seed."""
    points = [SizePoint(policy, seed) for policy in dict.fromkeys(policies) for seed in seeds]
    question = scenario, part, goal, timing
    rows = map_kept(calls or Here(1), _search, question, points, kept=kept, progress=partial(progress, "size"))
    return [_sizing(scenario, part, [row for row in rows if row.policy == name]) for name in dict.fromkeys(policies)]


def _sizing(scenario: Scenario, part: SizedPart | None, rows: Sequence[SizedSeed]) -> Sizing:
    own_nodes, each = node_count(scenario.site), 1.0 if part is None else part.own
    own, unit = (float(own_nodes), "nodes") if part is None else (part.own, part.unit)
    sizes = tuple(None if row.found is None else each * row.found for row in rows)
    known = [found for found in sizes if found is not None]
    good = [row for row in rows if row.peak_w > 0]
    budget_w = SiteIndex.of(scenario.site).budget_at(scenario.site.name, scenario.start_s)
    use = statistics.fmean(row.peak_w / budget_w for row in good) if budget_w and good else 0.0
    nodes = tuple(int(row.found or 0) if part is None else own_nodes for row in rows)
    whole = len(known) == len(sizes)
    low, high = interval(known) if whole else (None, None)
    mean = statistics.fmean(known) if whole else None
    of = "nodes" if part is None else part.kind
    return Sizing(rows[0].policy, nodes, tuple(row.misses for row in good), mean, low, high, use, of, unit, own, sizes)
