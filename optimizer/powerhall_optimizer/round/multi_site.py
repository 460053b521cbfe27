"""One round for several sites: one queue, each site with its own budget, weather, tariff and telemetry."""

from collections.abc import Callable, Sequence

import msgspec

from powerhall.jobs import Job, check_jobs
from powerhall.plan.multi_site import MultiSitePlan, multi_site_hash, read_plans
from powerhall.plan.plan import Plan, Planned, Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall.site.topology import Site
from powerhall.store import Store
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import multi_site_queue, site_snapshot
from powerhall_optimizer.inputs.telemetry import store_queue
from powerhall_optimizer.inputs.what_if import multi_site_what_if
from powerhall_optimizer.planning.figures import multi_site_figures
from powerhall_optimizer.planning.multi_site import make_multi_site_plan
from powerhall_optimizer.problem.eligibility import may_run_at
from powerhall_optimizer.round.publish import multi_site_key, publish_multi_site
from powerhall_optimizer.round.request import RoundRequest
from powerhall_optimizer.round.single_site import with_observed_nodes
from powerhall_optimizer.storage.state import with_storage_content
from powerhall_optimizer.verify.multi_site import verify_multi_site

__all__ = ["observe_sites", "run_multi_site_round"]

replace = msgspec.structs.replace


def _store_queues(store: Store, sites: Sequence[Site]) -> tuple[tuple[Job, ...], tuple[str, ...]]:
    """Return the queues of all sites as one; a job that names no sites stays at the one whose queue it is in."""
    jobs: list[Job] = []
    down: list[str] = []
    for site in sites:
        own, closed = store_queue(store, site.name)
        down += closed
        for job in own:
            runs_at = site.name if job.state == "running" else None
            jobs.append(replace(job, site=runs_at, sites=job.sites or (site.name,)))
    return check_jobs(jobs, "store: queues of " + ", ".join(site.name for site in sites)), tuple(down)


def observe_sites(request: RoundRequest, settings: RoundSettings, log: Log) -> list[Snapshot]:
    """Return the snapshot of every site, each with the whole queue."""
    sites = [inputs.site for inputs in request.sites]
    down: tuple[str, ...] = ()
    if request.jobs is not None:
        jobs, source = request.jobs, request.jobs_source
    elif request.store is not None:
        (jobs, down), source = _store_queues(request.store, sites), "store"
    else:
        raise PowerhallError("round: needs --jobs or --store to know the queue")
    jobs = multi_site_queue(sites, jobs, source)
    snapshots = []
    for inputs in request.sites:
        own = tuple(job for job in jobs if job.state == "waiting" or may_run_at(job, inputs.site.name))
        snapshot = site_snapshot(inputs.site, inputs.planning, own, request.horizon, settings.objective)
        snapshots.append(with_observed_nodes(snapshot, down, request, settings, log))
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
        return None if body is None else msgspec.json.decode(body, type=MultiSitePlan)
    except (PowerhallError, msgspec.MsgspecError) as error:
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


def run_multi_site_round(
    request: RoundRequest, settings: RoundSettings, stop: Callable[[], bool], log: Log, created_s: int
) -> MultiSitePlan:
    """Run a round of several sites and return the plan in force after it."""
    snapshots = observe_sites(request, settings, log)
    previous = _last_plan(request, snapshots, log)
    last = {} if previous is None else {part.snapshot.site.name: part for part in previous.plans}
    snapshots = [with_storage_content(s, last.get(s.site.name), request.store, request.now_s) for s in snapshots]
    plan_id = multi_site_hash(snapshots, snapshots[0].jobs)
    if previous is not None and previous.plan_id == plan_id and not verify_multi_site(previous):
        log.info("unchanged", plan_id=plan_id[:12])
        if not request.dry_run:
            publish_multi_site(previous, request.store, request.out)
        return previous
    planned = _planned(previous, snapshots)
    snapshots = [replace(s, planned=planned) for s in snapshots]
    plan = make_multi_site_plan(
        snapshots, settings, request.seconds, created_s=created_s, stop=stop, log=log, previous=previous
    )
    if not request.dry_run:
        publish_multi_site(plan, request.store, request.out)
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
