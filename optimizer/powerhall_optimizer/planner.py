"""From a snapshot to a verified plan: keep what runs, solve, place, verify; each step falls back to a simpler one."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from powerhall.errors import PowerhallError
from powerhall.plan import Certificate, Plan, Snapshot
from powerhall_optimizer.assemble import assemble
from powerhall_optimizer.budgets import Ground
from powerhall_optimizer.build import Built, build
from powerhall_optimizer.greedy import fill
from powerhall_optimizer.keep import Kept, keep_running
from powerhall_optimizer.log import Log
from powerhall_optimizer.place import place
from powerhall_optimizer.problem import Schedule
from powerhall_optimizer.settings import RoundSettings
from powerhall_optimizer.verify.certify import from_prices
from powerhall_optimizer.verify.plan import verify_plan
from powerhall_optimizer.verify.schedule import exact_bound
from powerhall_optimizer.verify.worth import trivial_bound

__all__ = ["Unplannable", "make_plan"]


class Unplannable(PowerhallError):  # noqa: N818 - named after what it says
    """No plan passed the checker, not even the one that starts nothing new; the text names the first broken limit."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A schedule before placement, with what is proven about it."""

    schedule: Schedule
    status: str
    bound: int
    certificate: Certificate | None = None
    notes: tuple[str, ...] = ()


def make_plan(
    snapshot: Snapshot,
    settings: RoundSettings,
    seconds: float,
    *,
    created_s: int,
    stop: Callable[[], bool] = lambda: False,
    log: Log,
) -> Plan:
    """Return a plan that passed the checker; `Unplannable` when there is none. Takes about `seconds`."""
    began = time.monotonic()
    ground = Ground(snapshot)
    built = build(snapshot, ground)
    kept = keep_running(ground, built)
    if kept.stops:
        before, built = built, build(snapshot, ground, kept.stops)
        kept = Kept(_rekeyed(before, built, kept), kept.stops, kept.broken)
        log("shed", "warning", jobs=len(kept.stops))
    last = None
    for step in (_solved, _greedy, _kept):
        try:
            draft = step(built, kept, settings, began + seconds, stop)
        except PowerhallError as error:
            log("stage_failed", "warning", stage=step.__name__.strip("_"), reason=error)
            continue
        if draft is None:
            continue
        placed = place(ground, built, draft.schedule)
        plan = assemble(
            snapshot,
            built,
            placed,
            kept,
            status=draft.status,
            bound=draft.bound,
            created_s=created_s,
            certificate=draft.certificate,
            notes=draft.notes,
            solve_s=round(time.monotonic() - began, 3),
        )
        broken = verify_plan(plan)
        if not broken:
            return plan
        last = str(broken[0])
        log("draft_refused", "error", stage=step.__name__.strip("_"), reason=last, violations=len(broken))
    raise Unplannable(f"no plan holds every limit: {last}")


def _rekeyed(before: Built, built: Built, kept: Kept) -> Schedule:
    """Return the kept schedule in the options of a problem rebuilt with stops; jobs shed later get the lowest mode."""
    schedule = Schedule.empty(built.problem.jobs)
    for number, job in enumerate(built.jobs):
        options = built.problem.options_of(number)
        option = int(kept.schedule.option[number])
        if option >= 0:
            schedule.option[number] = options[option - before.problem.options_of(number)[0]]
        elif kept.stops.get(job.job_id, 0) > 0:
            schedule.option[number] = min(options, key=lambda o: built.choices[o].gpu_power_w)
        if schedule.option[number] >= 0:
            schedule.start[number] = 0
    return schedule


def _solved(
    built: Built, kept: Kept, settings: RoundSettings, deadline_s: float, stop: Callable[[], bool]
) -> Draft | None:
    from powerhall_optimizer.solve.pipeline import solve

    result = solve(
        built.problem,
        seconds=max(0.1, deadline_s - time.monotonic()),
        target_gap=settings.target_gap,
        seed=settings.seed,
        workers=settings.workers,
        previous=kept.schedule,
        stop=stop,
    )
    certificate = from_prices(built.problem, result.certificate)
    bound = exact_bound(built.problem, result.certificate)
    return Draft(result.schedule, "feasible", bound, certificate)


def _greedy(
    built: Built, kept: Kept, _settings: RoundSettings, deadline_s: float, _stop: Callable[[], bool]
) -> Draft | None:
    schedule = fill(built.problem, kept.schedule, deadline_s)
    return Draft(schedule, "feasible", trivial_bound(built.problem))


def _kept(
    built: Built, kept: Kept, _settings: RoundSettings, _deadline_s: float, _stop: Callable[[], bool]
) -> Draft | None:
    note = "fallback: keeps what runs and starts nothing new"
    return Draft(kept.schedule, "fallback", trivial_bound(built.problem), notes=(note,))
