"""The explanation of one job in lines of text: a sentence for the shift, what would start it, and the numbers behind.

`job_explanation` takes the way to plan again (`promises`); without it only what holds alone is said.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from powerhall.jobs import Job
from powerhall.plan.gpu_parts import gpus_text
from powerhall.plan.multi_site import MultiSitePlan
from powerhall.plan.plan import Assignment, Plan, Snapshot, Waiting
from powerhall.runtime.errors import Rejected
from powerhall.units import format_power
from powerhall_optimizer.physics.site_conditions import time_text
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.block_report import block_lines
from powerhall_optimizer.planning.explain import Explainer, explainer_of
from powerhall_optimizer.planning.plan_value import plan_dispatch, plan_stops, schedule_of
from powerhall_optimizer.planning.promises import Promise, Replan, promises
from powerhall_optimizer.planning.shared_gpus import SharedGpus, host_plan
from powerhall_optimizer.planning.wait_reasons import Alternative
from powerhall_optimizer.problem.site_problem import build_problem
from powerhall_optimizer.storage.model import build_storage_model, with_dispatch

__all__ = ["Explanation", "explain_lines", "job_explanation", "no_time"]

replace = msgspec.structs.replace


class Explanation(msgspec.Struct, frozen=True):
    """The lines, the first of which says the most, and what would start the job."""

    lines: tuple[str, ...]
    would_start: tuple[Promise, ...] = ()


def no_time(_snapshot: Snapshot) -> Sequence[Plan]:
    """Plan nothing again."""
    return ()


def job_explanation(plan: Plan | MultiSitePlan, job_id: str, source: str, replan: Replan = no_time) -> Explanation:
    """Return the explanation of one job; Rejected, naming `source`, when the plan does not have it."""
    jobs = plan.jobs if isinstance(plan, MultiSitePlan) else plan.snapshot.jobs
    parts = plan.plans if isinstance(plan, MultiSitePlan) else (plan,)
    for entry in (entry for part in parts for entry in part.snapshot.left_out if entry.job_id == job_id):
        runs = "; it runs, so what it uses counts at its worst" if entry.running else ""
        return Explanation((f"{job_id}: left out of the plan ({entry.code}): {entry.reason}{runs}",))
    if job_id not in {job.job_id for job in jobs}:
        raise Rejected.field(source, "job", job_id, "must be a job of the plan")
    if isinstance(plan, MultiSitePlan):
        return Explanation(tuple(_multi_site_lines(plan, job_id)))
    would_start = _would_start(plan, job_id, replan)
    return Explanation(tuple(explain_lines(plan, job_id, would_start)), would_start)


def _would_start(plan: Plan, job_id: str, replan: Replan) -> tuple[Promise, ...]:
    job = next(job for job in plan.snapshot.jobs if job.job_id == job_id)
    waits = any(entry.job_id == job_id for entry in plan.waiting)
    is_guest = job.gpu_share is not None and SharedGpus.of(plan.snapshot).host_of(job_id) is not None
    if not waits or is_guest or job.state == "running" or plan.snapshot.starts_held:
        return ()
    return tuple(promises(plan, job_id, replan))


def _multi_site_lines(plan: MultiSitePlan, job_id: str) -> Iterator[str]:
    """Yield the explanation of one job of several sites' plans, site by site."""
    home = next(part for part in plan.plans if job_id in {job.job_id for job in part.snapshot.jobs})
    lines = explain_lines(home, job_id)
    yield next(lines)
    yield f"  site {home.snapshot.site.name}:"
    yield from (f"  {line}" for line in lines)
    job = next(job for job in plan.jobs if job.job_id == job_id)
    for part in plan.plans:
        site = part.snapshot.site.name
        if part is home:
            continue
        if job.sites and site not in job.sites:
            yield f"  site {site}: its data may not be there (may run only at {', '.join(job.sites)})"
        elif job.state == "running":
            yield f"  site {site}: it runs at {job.site}"
        else:
            yield f"  site {site}:"
            yield from (f"  {line}" for line in _elsewhere(part, job))


def _elsewhere(part: Plan, job: Job) -> Iterator[str]:
    """Yield the alternatives of a job beside the plan of another site."""
    snapshot = replace(part.snapshot, jobs=(*part.snapshot.jobs, job))
    built = build_problem(snapshot, stops=plan_stops(part))
    model = build_storage_model(snapshot, built)
    built = with_dispatch(built, model, plan_dispatch(part, model))
    explainer = Explainer(snapshot, built, schedule_of((part,), built), None)
    if job.job_id in built.no_options:
        yield f"  {texts.no_option_text(built.no_options[job.job_id])}"
    for found in explainer.best(job.job_id):
        yield _alternative_line(explainer, found)


def _alternative_line(explainer: Explainer, found: Alternative) -> str:
    fits = "fits beside the plan" if not found.shortages else "lacks " + explainer.shortages_text(found)
    return (
        f"  alternative: {found.choice.hall}, mode {found.choice.mode}, {explainer.when(found.start)} to "
        f"{explainer.when(found.end)}, value {found.value_usd:.2f} USD within the horizon: {fits}"
    )


def explain_lines(plan: Plan, job_id: str, would_start: Sequence[Promise] = ()) -> Iterator[str]:
    """Yield the explanation of one job; KeyError when the plan does not have it."""
    jobs: Mapping[str, int] = {job.job_id: n for n, job in enumerate(plan.snapshot.jobs)}
    job = plan.snapshot.jobs[jobs[job_id]]
    entry = next((a for a in plan.assignments if a.job_id == job_id), None)
    waiting = next((w for w in plan.waiting if w.job_id == job_id), None)
    yield _first(job, entry, waiting, would_start)
    state = "queued" if job.state == "waiting" else job.state
    yield f"  {gpus_text(job)}, weight {job.weight:g}, {job.duration_s / 3600:.2f} h of work, {state}"
    if entry is not None:
        yield from _planned_lines(entry)
    yield from (f"  {promise.text()}" for promise in would_start)
    if waiting is not None:
        yield f"  waits ({waiting.code}): {waiting.reason}"
        if waiting.binding:
            yield f"  held back by: {', '.join(waiting.binding)}"
    if entry is None:
        explainer = explainer_of(host_plan(plan))
        host = None if job.gpu_share is None else SharedGpus.of(plan.snapshot).host_of(job_id)
        yield from (_alternative_line(explainer, found) for found in explainer.best(host or job_id))
        yield from block_lines(plan, job)


def _first(job: Job, entry: Assignment | None, waiting: Waiting | None, would_start: Sequence[Promise]) -> str:
    """Return the sentence that says what happens with the job, and what would start it."""
    if waiting is not None:
        does = "waits" if entry is None and job.state == "waiting" else "stops"
        then = f" {would_start[0].text()}" if would_start else ""
        return f"{job.job_id} {does}: {waiting.reason}.{then}"
    if entry is None:
        return f"{job.job_id}: the plan neither places it nor says why it waits; `verify` refuses such a plan."
    if job.state == "running":
        return f"{job.job_id} runs in {entry.hall}, mode {entry.mode}, until {time_text(entry.end_s)}."
    return f"{job.job_id} starts at {time_text(entry.start_s)} in {entry.hall}, mode {entry.mode}."


def _planned_lines(entry: Assignment) -> Iterator[str]:
    span = f"{time_text(entry.start_s)} to {time_text(entry.end_s)}"
    power = f"no power beside {entry.beside}" if entry.beside else format_power(entry.gpus * entry.gpu_power_w)
    yield f"  planned: {entry.hall}, {entry.node_type}, mode {entry.mode}, {span}, {power}"
    yield f"  {entry.reason or 'runs at once in its fastest mode'}"
