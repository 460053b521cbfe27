"""One round for several sites: one queue, each site with its own budget, weather, tariff and telemetry."""

from collections.abc import Callable, Sequence

import msgspec

from powerhall.jobs import Job
from powerhall.jobs.left_out import sound_jobs
from powerhall.plan.multi_site import MultiSitePlan, multi_site_hash, read_plans
from powerhall.plan.plan import Plan, Planned, Snapshot
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.log import Log
from powerhall.site.topology import Site
from powerhall_optimizer.archive.entries import RoundInputs
from powerhall_optimizer.archive.keep import begin_archive, keep_round
from powerhall_optimizer.inputs.left_out_jobs import home_of
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.seated_jobs import without_parts
from powerhall_optimizer.inputs.snapshot import multi_site_queue, site_snapshot
from powerhall_optimizer.inputs.telemetry import StoreQueue, store_queue
from powerhall_optimizer.inputs.what_if import multi_site_what_if
from powerhall_optimizer.planning.figures import multi_site_figures
from powerhall_optimizer.planning.multi_site import make_multi_site_plan
from powerhall_optimizer.planning.round_clock import RoundClock
from powerhall_optimizer.problem.eligibility import may_run_at
from powerhall_optimizer.round.publish import multi_site_key, publish_multi_site
from powerhall_optimizer.round.request import RoundRequest
from powerhall_optimizer.round.single_site import note_owners, refuse_left_out, with_observed_nodes
from powerhall_optimizer.storage.state import with_storage_content
from powerhall_optimizer.verify.multi_site import verify_multi_site

__all__ = ["observe_sites", "observed_sites", "run_multi_site_round"]

replace = msgspec.structs.replace


def _queues(request: RoundRequest, sites: Sequence[Site]) -> tuple[StoreQueue, str]:
    """Return the queues of all sites as one, and their source; the oldest says how old they are.

    A job of the store that names no sites stays at the one whose queue it is in.
    """
    if request.jobs is not None:
        return StoreQueue(request.jobs, (), request.left_out, None), request.jobs_source
    if request.store is None:
        raise PowerhallError("round: needs --jobs or --store to know the queue")
    queues = [store_queue(request.store, site.name) for site in sites]
    jobs: list[Job] = []
    for site, queue in zip(sites, queues, strict=True):
        for job in queue.jobs:
            runs_at = site.name if job.state == "running" else None
            jobs.append(replace(job, site=runs_at, sites=job.sites or (site.name,)))
    source = "store: queues of " + ", ".join(site.name for site in sites)
    found = sound_jobs(jobs, source)
    left_out = (*(entry for queue in queues for entry in queue.left_out), *found.left_out)
    taken = [queue.taken_s for queue in queues if queue.taken_s is not None]
    down = tuple(node for queue in queues for node in queue.down_nodes)
    off = tuple(node for queue in queues for node in queue.off_nodes)
    return StoreQueue(found.jobs, down, left_out, min(taken, default=None), off), source


def observe_sites(request: RoundRequest, settings: RoundSettings, log: Log) -> list[Snapshot]:
    """Return the snapshot of every site, each with the whole queue."""
    sites = [inputs.site for inputs in request.sites]
    for inputs in request.sites:
        if inputs.planning.billing.budgets:
            allowed = "must not be given where several sites are planned together: a tenant may use all of them"
            raise Rejected.field(inputs.site.name, "billing.budgets", len(inputs.planning.billing.budgets), allowed)
        if inputs.planning.billing.demand_charges:
            names = ", ".join(charge.name for charge in inputs.planning.billing.demand_charges)
            log.warning("demand_charges_not_planned", site=inputs.site.name, charges=names)
    queue, source = _queues(request, sites)
    found = multi_site_queue(sites, queue.jobs, source)
    jobs, parts = without_parts(found.jobs, sites)
    left_out = (*queue.left_out, *found.left_out, *parts)
    refuse_left_out(request, left_out)
    held = queue.too_old(request.now_s, settings.queue_stale_after_s)
    snapshots = []
    for inputs in request.sites:
        own = tuple(job for job in jobs if job.state == "waiting" or may_run_at(job, inputs.site.name))
        snapshot = site_snapshot(inputs.site, inputs.planning, own, request.horizon, settings.objective)
        missing = tuple(entry for entry in left_out if home_of(sites, entry) == inputs.site.name)
        snapshot = replace(snapshot, left_out=missing, starts_held=held)
        snapshots.append(with_observed_nodes(snapshot, queue, request, settings, log))
    expected = _longest([s.jobs for s in snapshots])
    jobs = tuple(expected.get(job.job_id, job) for job in jobs)
    snapshots = [replace(s, jobs=jobs) for s in snapshots]
    return snapshots if request.what_if is None else multi_site_what_if(snapshots, request.what_if)


def _longest(queues: Sequence[tuple[Job, ...]]) -> dict[str, Job]:
    """Return every job with the most work that any site expects of it."""
    found: dict[str, Job] = {}
    for job in (job for queue in queues for job in queue):
        if job.job_id not in found or job.duration_s > found[job.job_id].duration_s:
            found[job.job_id] = job
    return found


def _stored_plan(request: RoundRequest, names: Sequence[str], log: Log) -> Plan | MultiSitePlan | None:
    """Return the last plan from plan.json or the store; one that cannot be read is left out and logged."""
    try:
        if request.out is not None and request.out.exists():
            return read_plans(request.out)
        body = None if request.store is None else request.store.latest_document("fleet", multi_site_key(names))
        return None if body is None else decode_json(body, MultiSitePlan, "store: plan")
    except PowerhallError as error:
        log.warning("last_plan_unreadable", reason=error)
        return None


def _last_plan(request: RoundRequest, snapshots: Sequence[Snapshot], log: Log) -> MultiSitePlan | None:
    """Return the last plan, as given or stored, if it is of the same sites."""
    names = [s.site.name for s in snapshots]
    found = request.previous or _stored_plan(request, names, log)
    if isinstance(found, MultiSitePlan) and [p.snapshot.site.name for p in found.plans] == names:
        return found
    return None


def _planned(plan: MultiSitePlan | None, snapshots: Sequence[Snapshot]) -> tuple[Planned, ...]:
    """Return the last plan's decisions for jobs that still wait; nothing from a plan of the future or long ago."""
    if plan is None:
        return ()
    now, then = snapshots[0], plan.plans[0].snapshot
    if not 0 <= now.start_s - then.start_s < then.slots * then.slot_s:
        return ()
    waiting = {job.job_id for job in now.jobs if job.state == "waiting"}
    return tuple(
        Planned(a.job_id, a.hall, a.mode, a.start_s, part.snapshot.site.name)
        for part in plan.plans
        for a in part.assignments
        if a.job_id in waiting and a.start_s >= now.start_s
    )


def observed_sites(
    request: RoundRequest, settings: RoundSettings, log: Log
) -> tuple[list[Snapshot], MultiSitePlan | None]:
    """Return the snapshots of now with storage content and the last plan's decisions, and the last plan."""
    snapshots = observe_sites(request, settings, log)
    previous = _last_plan(request, snapshots, log)
    last = {} if previous is None else {part.snapshot.site.name: part for part in previous.plans}
    snapshots = [with_storage_content(s, last.get(s.site.name), request.store, request.now_s) for s in snapshots]
    planned = _planned(previous, snapshots)
    return [replace(s, planned=planned) for s in snapshots], previous


def run_multi_site_round(
    request: RoundRequest, settings: RoundSettings, stop: Callable[[], bool], log: Log, created_s: int
) -> MultiSitePlan:
    """Run a round of several sites and return the plan in force after it."""
    clock = request.clock or RoundClock.start(request.seconds)
    snapshots, previous = observed_sites(request, settings, log)
    plan_id = multi_site_hash(snapshots, snapshots[0].jobs)
    if previous is not None and previous.plan_id == plan_id and not verify_multi_site(previous):
        log.info("unchanged", plan_id=plan_id[:12])
        if not request.dry_run:
            begin_archive(request.archive, log)
            publish_multi_site(previous, request.store, request.out)
        return previous
    clock.mark("read")
    plan = make_multi_site_plan(
        snapshots, settings, request.seconds, created_s=created_s, stop=stop, log=log, previous=previous, clock=clock
    )
    if not request.dry_run:
        for s in snapshots:
            last = None if previous is None else next(p for p in previous.plans if p.snapshot.site.name == s.site.name)
            note_owners(request.store, s, last)
        inputs = RoundInputs(tuple(snapshots), settings, request.seconds, created_s)
        keep_round(request.archive, inputs, plan, previous, log)
        publish_multi_site(plan, request.store, request.out)
    clock.mark("publish")
    clock.warn_when_late(log)
    come = multi_site_figures(plan)
    log.info(
        "planned" if request.dry_run else "published",
        plan_id=plan.plan_id[:12],
        sites=",".join(s.site.name for s in snapshots),
        status=plan.status,
        gap=plan.gap,
        running=come.jobs_running,
        started=come.jobs_started,
        waiting=come.jobs_waiting,
        solve_s=plan.solve_s,
    )
    return plan
