"""What a plan changed of the plan before it, counted and explained job by job."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import msgspec

from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Assignment, Changes, Plan, Waiting
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.last_plan import LastPlan
from powerhall_optimizer.problem.arrays import Schedule

__all__ = ["with_changes", "with_changes_of_sites"]

replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True)
class _Change:
    """A decision of the last plan that is another one now, or none; `site` is where it was."""

    before: Assignment
    now: Assignment | None
    site: str


def with_changes(plan: Plan, previous: Plan, last: LastPlan, solved: Schedule, settings: RoundSettings) -> Plan:
    """Return the plan with the count of its changes, a note on it, and a reason for each.

    `solved` is the schedule before it was placed.
    """
    changes, reasons = _compared([previous], [plan], last, last.given_up(solved), settings)
    return replace(_explained(plan, reasons), changes=changes, notes=(*plan.notes, texts.changes_text(changes)))


def with_changes_of_sites(
    plan: MultiSitePlan, previous: MultiSitePlan, last: LastPlan, solved: Schedule, settings: RoundSettings
) -> MultiSitePlan:
    """Return the plan of several sites with the count of its changes, a note on it, and a reason for each."""
    changes, reasons = _compared(previous.plans, plan.plans, last, last.given_up(solved), settings)
    parts = tuple(_explained(part, reasons) for part in plan.plans)
    return replace(plan, plans=parts, changes=changes, notes=(*plan.notes, texts.changes_text(changes)))


def _compared(
    before: Sequence[Plan],
    after: Sequence[Plan],
    last: LastPlan,
    given_up: Set[str],
    settings: RoundSettings,
) -> tuple[Changes, dict[str, str]]:
    start_s = after[0].snapshot.start_s
    queue = {job.job_id for plan in after for job in plan.snapshot.jobs}
    then = _by_job(before, queue)
    now = _by_job(after, queue)
    changed = {
        job: _Change(entry, now[job][1] if job in now else None, site)
        for job, (site, entry) in then.items()
        if job not in now or not _same(entry, site, *now[job], start_s)
    }
    firm = last.near_jobs & changed.keys()
    started = sum(job not in then and not entry.running for job, (_, entry) in now.items())
    counts = Changes(last.plan_id, len(then), len(changed), len(firm), started, settings.keep_s, settings.move_gain)
    broken = {job: texts.given_up_text(settings.near_gain) for job in given_up} | {**last.forced}
    return counts, {job: _reason(change, job in firm, broken.get(job)) for job, change in changed.items()}


def _by_job(plans: Sequence[Plan], queue: set[str]) -> dict[str, tuple[str, Assignment]]:
    return {a.job_id: (plan.snapshot.site.name, a) for plan in plans for a in plan.assignments if a.job_id in queue}


def _same(before: Assignment, site_before: str, site: str, now: Assignment, start_s: int) -> bool:
    """Whether a decision stands; one whose time has come is expected now, a running job on the nodes where it is."""
    place = before.hall, before.node_type, before.mode, max(before.start_s, start_s)
    if (site_before, place) != (site, (now.hall, now.node_type, now.mode, now.start_s)):
        return False
    return now.running or before.placements == now.placements


def _reason(change: _Change, firm: bool, broken: str | None) -> str:
    before, now = change.before, change.now
    only_nodes = now is not None and _decision(before) == _decision(now)
    return texts.changed_text(before, only_nodes=only_nodes, firm=firm, broken=broken)


def _decision(entry: Assignment) -> tuple[str, str, str, int]:
    return entry.hall, entry.node_type, entry.mode, entry.start_s


def _explained(plan: Plan, reasons: Mapping[str, str]) -> Plan:
    def assigned(entry: Assignment) -> Assignment:
        return replace(entry, reason=_joined(reasons.get(entry.job_id), entry.reason))

    def waiting(entry: Waiting) -> Waiting:
        return replace(entry, reason=_joined(reasons.get(entry.job_id), entry.reason))

    return replace(plan, assignments=tuple(map(assigned, plan.assignments)), waiting=tuple(map(waiting, plan.waiting)))


def _joined(first: str | None, second: str) -> str:
    return "; ".join(text for text in (first, second) if text)
