"""Changes that an operator can make for a waiting job: limits, cooling, its weight, deadline, earliest start, halls.

Each is an item of `--what-if` and a text. Amounts are rounded up: what is written is what was checked.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from powerhall.jobs import Job
from powerhall.plan.plan import Assignment, Plan, Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.site.index import SiteIndex
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_optimizer.physics.site_conditions import time_text
from powerhall_optimizer.planning.beside import Beside, Inserted, Lack, holds
from powerhall_optimizer.planning.explain import Explainer, explainer_of
from powerhall_optimizer.problem.site_problem import Choice

__all__ = ["Change", "Lever", "Levers"]

replace = msgspec.structs.replace
_AMOUNTS = (1.0, 3.0)
"""Multiples of what a limit lacks that are tried, in turn."""
_WEIGHTS = (1.1, 3.0, 10.0)
_MOST_WEIGHT = 1e6


@dataclass(frozen=True, slots=True)
class Change:
    """One change: items of `--what-if`, and what would have to be ("hall1's power limit were at least 133 kW")."""

    items: tuple[str, ...]
    text: str

    def applied(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with the change."""
        return what_if(snapshot, ",".join(self.items))


@dataclass(frozen=True, slots=True)
class Lever:
    """A kind of change in growing amounts; with the first the job can start alone at `alone_s` (None: it cannot)."""

    changes: tuple[Change, ...]
    alone_s: int | None


class Levers:
    """The changes that may start waiting jobs of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.jobs = {job.job_id: job for job in plan.snapshot.jobs}
        self.beside = Beside(plan)
        self.explainer = explainer_of(plan)

    def of(self, job_id: str) -> Iterator[Lever]:
        """Yield the changes that may start a waiting job, those of its own fields first, its weight last."""
        yield from _of_fields(self.plan, self.jobs[job_id], self.beside)
        seen: set[tuple[str, ...]] = set()
        for inserted in _insertions(self.explainer, job_id, self.beside):
            changes = _of_limits(self.plan.snapshot, inserted.lacks)
            if changes and changes[0].items not in seen:
                seen.add(changes[0].items)
                yield self._lever(changes, inserted.entry)
        if changes := _of_weight(self.explainer, self.jobs[job_id]):
            yield Lever(changes, None)

    def _lever(self, changes: tuple[Change, ...], entry: Assignment) -> Lever:
        alone = holds(self.plan, changes[0].applied(self.plan.snapshot), (entry,))
        return Lever(changes, entry.start_s if alone else None)


def _insertions(explainer: Explainer, job_id: str, beside: Beside) -> Iterator[Inserted]:
    """Yield the job at its earliest start on free nodes, and at the one that lacks least."""
    problem = explainer.problem
    soonest: list[tuple[int, float, int]] = []
    least: list[tuple[float, int, int]] = []
    for option in problem.options_of(explainer.number[job_id]):
        first, last = int(problem.option_earliest[option]), int(problem.option_latest[option])
        if first > last:
            continue
        choice, duration = explainer.built.choices[option], int(problem.option_duration[option])
        free = np.flatnonzero(beside.openings(choice, duration)[first : last + 1])
        if len(free) == 0:
            continue
        lacks = explainer.shortage(option)[free]
        soonest.append((first + int(free[0]), float(lacks[0]), option))
        at = int(np.argmin(lacks))
        least.append((float(lacks[at]), first + int(free[at]), option))
    ways = [(option, start) for start, _, option in sorted(soonest)[:1]]
    ways += [(option, start) for _, start, option in sorted(least)[:1]]
    for option, start in dict.fromkeys(ways):
        choice, duration = explainer.built.choices[option], int(problem.option_duration[option])
        inserted = beside.insert(choice, start, duration)
        if inserted is not None:
            yield inserted


def _of_limits(snapshot: Snapshot, lacks: Sequence[Lack]) -> tuple[Change, ...]:
    """Return the change of all limits that lack something, in growing amounts; none where nothing lacks."""
    if not lacks:
        return ()
    return tuple(_limits(snapshot, lacks, factor) for factor in _AMOUNTS)


def _limits(snapshot: Snapshot, lacks: Sequence[Lack], factor: float) -> Change:
    items: list[str] = []
    told: list[str] = []
    percent: dict[str, float] = {}
    for lack in lacks:
        if lack.medium:
            percent[lack.zone] = max(percent.get(lack.zone, 0.0), 100 * lack.share * factor + 0.05)
            continue
        more = _power_up(lack.watts * factor + 1.0)
        is_site = lack.zone == snapshot.site.name
        items.append(f"{'grid' if is_site else lack.zone + '.power'}=+{more}")
        told.append(f"the power limit of {lack.zone} were {more} higher{_now(snapshot, lack.zone)}")
    for hall, share in percent.items():
        text = f"{math.ceil(share * 10) / 10:g}%"
        items.append(f"{hall}.cooling=+{text}")
        told.append(f"the cooling plants of {hall} had {text} more capacity")
    return Change(tuple(items), " and ".join(told))


def _now(snapshot: Snapshot, zone: str) -> str:
    limit_w = SiteIndex.of(snapshot.site).limits_w.get(zone)
    if zone in snapshot.site.budgets:
        return " at all times of its budget"
    return "" if limit_w is None else f" than {_exact(limit_w)}"


def _power_up(watts: float) -> str:
    """Write a power rounded up to three digits."""
    digits = max(0, math.floor(math.log10(max(watts, 1.0))) - 2)
    return _exact(math.ceil(watts / 10**digits) * 10**digits)


def _exact(watts: float) -> str:
    for unit, size in (("MW", 1e6), ("kW", 1e3)):
        if watts >= size:
            return f"{watts / size:.9g} {unit}"
    return f"{watts:.9g} W"


def _of_weight(explainer: Explainer, job: Job) -> tuple[Change, ...]:
    if len(explainer.problem.options_of(explainer.number[job.job_id])) == 0:
        return ()
    needed = explainer.weight_needed(job.job_id)
    base = max(job.weight, needed if needed is not None and needed < _MOST_WEIGHT else job.weight)
    weights = [_two_digits(base * factor) for factor in _WEIGHTS]
    return tuple(
        Change((f"{job.job_id}.weight={weight:.9g}",), f"its weight were {weight:g} (now {job.weight:g})")
        for weight in weights
        if job.weight < weight <= _MOST_WEIGHT
    )


def _two_digits(value: float) -> float:
    digits = math.floor(math.log10(value)) - 1
    return math.ceil(value / 10.0**digits - 1e-9) * 10.0**digits


def _of_fields(plan: Plan, job: Job, beside: Beside) -> Iterator[Lever]:
    """Yield the changes of the job's own deadline, earliest start and halls with which it fits beside the plan."""
    for field, empty in (("deadline", None), ("earliest", None), ("halls", ())):
        name = field if field == "halls" else f"{field}_s"
        if getattr(job, name) in (None, ()):
            continue
        try:
            inserted = _fits_with(plan, replace(job, **{name: empty}), beside)
        except (PowerhallError, KeyError):
            continue
        if inserted is None or inserted.lacks:
            continue
        entry = inserted.entry
        latest = time_text(-(-entry.end_s // 60) * 60)
        value, text = {
            "deadline": (latest, f"its deadline were {latest}"),
            "earliest": (time_text(entry.start_s), f"it might start from {time_text(entry.start_s)} on"),
            "halls": (" ".join((*job.halls, entry.hall)), f"it might use {entry.hall} as well"),
        }[field]
        change = Change((f"{job.job_id}.{field}={value}",), text)
        alone = holds(plan, change.applied(plan.snapshot), (entry,))
        yield Lever((change,), entry.start_s if alone else None)


def _fits_with(plan: Plan, job: Job, beside: Beside) -> Inserted | None:
    """Return the changed job at the earliest start at which it fits beside the plan; None where it fits nowhere."""
    jobs = tuple(job if other.job_id == job.job_id else other for other in plan.snapshot.jobs)
    explainer = explainer_of(replace(plan, snapshot=replace(plan.snapshot, jobs=jobs), certificate=None))
    problem = explainer.problem
    found: list[tuple[int, int, Choice]] = []
    for option in problem.options_of(explainer.number[job.job_id]):
        first, last = int(problem.option_earliest[option]), int(problem.option_latest[option])
        if first > last:
            continue
        choice, duration = explainer.built.choices[option], int(problem.option_duration[option])
        free = beside.openings(choice, duration)[first : last + 1] & (explainer.shortage(option) <= 0)
        if free.any():
            found.append((first + int(np.argmax(free)), duration, choice))
    if not found:
        return None
    start, duration, choice = min(found, key=lambda way: way[:2])
    return beside.insert(choice, start, duration)
