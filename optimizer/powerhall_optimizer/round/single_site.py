"""One round: observe, plan, verify, publish; under one lock and one deadline, and idempotent.

Invariants:
* every published plan passed the checker; a round that fails publishes nothing and leaves the last plan as it is;
* plan.json is replaced in one step after everything else, so a killed round leaves the old plan or the new one;
* a second round on the same plan file is refused while the first runs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from powerhall.plan.plan import Plan, Planned, Snapshot, read_plan, snapshot_hash
from powerhall.runtime.errors import PowerhallError, Retryable
from powerhall.runtime.file_lock import FileLock, LockHeld, lock_path
from powerhall.runtime.log import Log
from powerhall.site.index import SiteIndex
from powerhall.store import Store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.inputs.learning import learn_from_telemetry
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import check_fit, site_snapshot
from powerhall_optimizer.inputs.telemetry import node_state, store_queue
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_optimizer.planning.figures import figures
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.round.publish import publish
from powerhall_optimizer.round.request import RoundRequest
from powerhall_optimizer.storage.state import with_storage_content
from powerhall_optimizer.verify.plan import verify_plan

__all__ = ["observe", "one_round_at_a_time", "run_round", "with_observed_nodes"]


@contextmanager
def one_round_at_a_time(out: Path | None) -> Iterator[None]:
    """Hold the lock beside the plan file; Retryable while another round holds it. The lock dies with its process."""
    if out is None:
        yield
        return
    path = lock_path(out)
    try:
        lock = FileLock(path)
    except LockHeld:
        raise Retryable(f"{path}: another round is running on this plan; nothing was done") from None
    except OSError as error:
        raise PowerhallError(f"{path}: cannot open the lock: {error.strerror}") from None
    with lock:
        yield


def last_plan(request: RoundRequest, site: str, log: Log) -> Plan | None:
    """Return the last plan as given, from plan.json or the store; one that cannot be read is left out and logged."""
    if isinstance(request.previous, Plan):
        return request.previous
    try:
        if request.out is not None and request.out.exists():
            return read_plan(request.out)
        body = None if request.store is None else request.store.latest_document("plan", site)
        return None if body is None else msgspec.json.decode(body, type=Plan)
    except (PowerhallError, msgspec.MsgspecError) as error:
        log.warning("last_plan_unreadable", reason=error)
        return None


def _planned(plan: Plan | None, snapshot: Snapshot) -> tuple[Planned, ...]:
    """Return the last plan's decisions for jobs that still wait; nothing from a plan of the future or long ago."""
    if plan is None or plan.snapshot.site.name != snapshot.site.name:
        return ()
    age_s = snapshot.start_s - plan.snapshot.start_s
    if not 0 <= age_s < plan.snapshot.slots * plan.snapshot.slot_s:
        return ()
    waiting = {job.job_id for job in snapshot.jobs if job.state == "waiting"}
    return tuple(
        Planned(a.job_id, a.hall, a.mode, a.start_s)
        for a in plan.assignments
        if a.job_id in waiting and a.start_s >= snapshot.start_s
    )


def observe(request: RoundRequest, settings: RoundSettings, log: Log) -> Snapshot:
    """Return the snapshot of now."""
    site, planning = request.sites[0].site, request.sites[0].planning
    down: tuple[str, ...] = ()
    if request.jobs is not None:
        jobs = request.jobs
        check_fit(site, jobs, request.jobs_source)
    elif request.store is not None:
        jobs, down = store_queue(request.store, site.name)
    else:
        raise PowerhallError("round: needs --jobs or --store to know the queue")
    snapshot = site_snapshot(site, planning, jobs, request.horizon, settings.objective)
    snapshot = with_observed_nodes(snapshot, down, request, settings, log)
    return snapshot if request.what_if is None else what_if(snapshot, request.what_if)


def with_observed_nodes(
    snapshot: Snapshot, down: Sequence[str], request: RoundRequest, settings: RoundSettings, log: Log
) -> Snapshot:
    """Return the snapshot with down nodes and the state from telemetry; `down` may name foreign nodes."""
    every = SiteIndex.of(snapshot.site).rack_of
    unusable = sorted(node for node in {*request.down_nodes, *down} if node in every)
    snapshot = msgspec.structs.replace(snapshot, down_nodes=tuple(unusable))
    if request.store is None:
        return snapshot
    return _with_telemetry(snapshot, request, request.store, settings, log)


def _with_telemetry(
    snapshot: Snapshot, request: RoundRequest, store: Store, settings: RoundSettings, log: Log
) -> Snapshot:
    state = node_state(store, snapshot.site, request.now_s, settings.stale_after_s)
    if not state.known:
        log.warning("no_telemetry", site=snapshot.site.name)
        return snapshot
    stale = tuple(node for node in state.stale if node not in snapshot.down_nodes)
    nodes = len(SiteIndex.of(snapshot.site).rack_of)
    share = len(stale) / max(1, nodes)
    alarm = share > settings.stale_share
    if stale:
        (log.warning if alarm else log.info)("stale_nodes", nodes=len(stale), share=share)
    if not request.dry_run:
        _alarm(store, snapshot, alarm, f"{len(stale)} of {nodes} nodes without fresh telemetry: no job is raised")
    snapshot = msgspec.structs.replace(snapshot, stale_nodes=stale, allow_raises=not alarm)
    if settings.learn_days == 0:
        return snapshot
    return learn_from_telemetry(store, snapshot, request.now_s, settings, keep=not request.dry_run)


def _alarm(store: Store, snapshot: Snapshot, active: bool, detail: str) -> None:
    tags = {"site": snapshot.site.name, "zone": snapshot.site.name, "kind": "stale_telemetry"}
    fields: dict[str, float | str] = {"active": float(active), "detail": detail if active else "telemetry is fresh"}
    store.write(encode(Point("alert", tags, fields, snapshot.taken_s * 1000)))


def run_round(
    request: RoundRequest, settings: RoundSettings, stop: Callable[[], bool], log: Log, created_s: int
) -> Plan:
    """Run a round and return the plan in force after it."""
    snapshot = observe(request, settings, log)
    previous = last_plan(request, snapshot.site.name, log)
    snapshot = with_storage_content(snapshot, previous, request.store, request.now_s)
    plan_id = snapshot_hash(snapshot)
    if previous is not None and previous.plan_id == plan_id and not verify_plan(previous):
        log.info("unchanged", plan_id=plan_id[:12])
        if not request.dry_run:
            publish(previous, request.store, None)
        return previous
    snapshot = msgspec.structs.replace(snapshot, planned=_planned(previous, snapshot))
    plan = make_plan(snapshot, settings, request.seconds, created_s=created_s, stop=stop, log=log, previous=previous)
    if not request.dry_run:
        publish(plan, request.store, request.out)
    come = figures(plan)
    log.info(
        "planned" if request.dry_run else "published",
        plan_id=plan.plan_id[:12],
        status=plan.status,
        gap=plan.gap,
        running=come.jobs_running,
        started=come.jobs_started,
        waiting=come.jobs_waiting,
        solve_s=plan.solve_s,
    )
    return plan
