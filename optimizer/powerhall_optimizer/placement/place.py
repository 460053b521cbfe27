"""Place a schedule that holds every hall's limits: onto nodes, within ramp limits, improved while time is left."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from powerhall.plan.plan import Placement
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.physics.site_conditions import SiteConditions
from powerhall_optimizer.placement.allowance import Allowance
from powerhall_optimizer.placement.placer import PlacedSchedule, Placer
from powerhall_optimizer.placement.ramps import keep_ramp_limits
from powerhall_optimizer.placement.ruin_recreate import ruin_and_recreate
from powerhall_optimizer.placement.running_first import place_running_jobs
from powerhall_optimizer.placement.same_nodes import keep_nodes, return_to_nodes
from powerhall_optimizer.problem.arrays import Schedule
from powerhall_optimizer.problem.site_problem import BuiltProblem
from powerhall_optimizer.problem.standing import HeldProblem

__all__ = ["place"]

_OTHERS_S = 5.0
"""Reference seconds for finding other options for jobs without nodes; the rest wait. The clock lets it have them."""
_FILL_S = 1.0
"""Reference seconds for starting waiting jobs in free capacity, before and after the search."""

_NO_NODES: Mapping[int, Sequence[Placement]] = {}


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Given:
    """What every try to place a schedule starts from."""

    conditions_of: Mapping[str, SiteConditions]
    built: BuiltProblem
    schedule: Schedule
    retained: Schedule
    work_s: float
    late: Callable[[], bool]
    settings: RoundSettings
    fill: bool


def place(
    conditions_of: Mapping[str, SiteConditions],
    built: BuiltProblem,
    schedule: Schedule,
    retained: Schedule,
    *,
    work_s: float = 0.0,
    late: Callable[[], bool] = _never,
    settings: RoundSettings | None = None,
    fill: bool = False,
    held: HeldProblem | None = None,
    nodes: Mapping[int, Sequence[Placement]] = _NO_NODES,
) -> PlacedSchedule:
    """Place a schedule that holds the problem's limits; the result holds those of rows, racks and feeds as well.

    `retained` has the running jobs as they hold every limit together. `fill` starts waiting jobs in free capacity and
    improves the placement for `work_s` reference seconds. Where `late()` comes true before that, nothing new is tried
    any more, and the result says so. With `held`, decisions of the last plan stay on their `nodes` and change only for
    their gain; where that costs more than they may, only the firm ones stay.
    """
    given = _Given(conditions_of, built, schedule, retained, work_s, late, settings or RoundSettings(), fill)
    if held is None:
        return _placed(given, None, {})
    placed = _placed(given, held, nodes)
    value, standing = placed.schedule.value(built.problem), held.standing
    enough = schedule.value(built.problem) - standing.cost * abs(value)
    if value >= enough or not fill or placed.cut:
        return placed
    firm = {job: where for job, where in nodes.items() if standing.firm[job]}
    other = _placed(given, HeldProblem(built.problem, replace(standing, gain=1)), firm)
    return other if other.schedule.value(built.problem) > value + standing.cost * abs(value) else placed


def _placed(given: _Given, held: HeldProblem | None, nodes: Mapping[int, Sequence[Placement]]) -> PlacedSchedule:
    built, schedule, retained = given.built, given.schedule, given.retained
    if held is not None:
        built = replace(built, problem=held.problem, choices=tuple(built.choices[o] for o in held.origin.tolist()))
        schedule, retained = held.own(schedule), held.own(retained)
    patient_s = time.monotonic() + _OTHERS_S
    parts = [Allowance(_OTHERS_S, lambda: given.late() and time.monotonic() > patient_s)]
    placer = Placer(given.conditions_of, built, schedule, parts[0])
    homeless = place_running_jobs(placer, retained)
    placer.close_running_gangs()
    if held is not None:
        keep_nodes(placer, nodes, held)
    placer.run(homeless)
    keep_ramp_limits(placer)
    if given.fill:
        parts += [Allowance(seconds, given.late) for seconds in (_FILL_S, given.work_s, _FILL_S)]
        parts.append(Allowance(_OTHERS_S, parts[0].late))
        placer.fill(parts[1])
        ruin_and_recreate(placer, schedule, given.settings, parts[2])
        placer.fill(parts[3])
        if placer.has_blocks:
            from powerhall_optimizer.placement.small_exact import place_exactly

            place_exactly(placer)
        placer.allowance = parts[4]
        keep_ramp_limits(placer)
    return_to_nodes(placer)
    placed = replace(placer.placed(), cut=any(part.cut for part in parts))
    return placed if held is None else replace(placed, schedule=held.whole(placed.schedule))
