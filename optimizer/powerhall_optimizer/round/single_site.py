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

from powerhall.jobs.left_out import LeftOut, LeftOutCode
from powerhall.plan.plan import Plan, Planned, Snapshot, read_plan, snapshot_hash
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import PowerhallError, Rejected, Retryable
from powerhall.runtime.file_lock import FileLock, LockHeld, lock_path
from powerhall.runtime.log import Log
from powerhall.site.index import SiteIndex
from powerhall.store import Store
from powerhall.store.line_protocol import Point, encode
from powerhall_optimizer.archive.entries import RoundInputs
from powerhall_optimizer.archive.keep import begin_archive, keep_round
from powerhall_optimizer.billing.demand import demand_notes, with_demand
from powerhall_optimizer.billing.job_owners import owner_points
from powerhall_optimizer.inputs.learning import learn_from_telemetry
from powerhall_optimizer.inputs.left_out_jobs import fitting_jobs
from powerhall_optimizer.inputs.observed_nodes import busy_nodes, observed_nodes
from powerhall_optimizer.inputs.round_settings import RoundSettings
from powerhall_optimizer.inputs.snapshot import site_snapshot
from powerhall_optimizer.inputs.telemetry import StoreQueue, node_state, store_queue
from powerhall_optimizer.inputs.what_if import what_if
from powerhall_optimizer.planning.checked import check_encoded
from powerhall_optimizer.planning.demand import better_of_two
from powerhall_optimizer.planning.figures import figures
from powerhall_optimizer.planning.planner import make_plan
from powerhall_optimizer.planning.round_clock import RoundClock
from powerhall_optimizer.round.period_budgets import with_period_budgets
from powerhall_optimizer.round.publish import publish
from powerhall_optimizer.round.request import RoundRequest
from powerhall_optimizer.storage.state import with_storage_content
from powerhall_optimizer.verify.plan import verify_plan

__all__ = [
    "note_owners",
    "observe",
    "observed",
    "one_round_at_a_time",
    "run_round",
    "still_planned",
    "with_observed_nodes",
]

_MOST_LOGGED = 20
"""Jobs left out that are logged one by one; the plan has all of them."""


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
        return None if body is None else decode_json(body, Plan, "store: plan")
    except PowerhallError as error:
        log.warning("last_plan_unreadable", reason=error)
        return None


def still_planned(plan: Plan | None, snapshot: Snapshot) -> tuple[Planned, ...]:
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


def _queue(request: RoundRequest, site: str) -> StoreQueue:
    if request.jobs is not None:
        return StoreQueue(request.jobs, (), request.left_out, None)
    if request.store is None:
        raise PowerhallError("round: needs --jobs or --store to know the queue")
    return store_queue(request.store, site)


def refuse_left_out(request: RoundRequest, left_out: Sequence[LeftOut]) -> None:
    """Refuse the round for the first job that would be left out, where that is asked for."""
    right = (LeftOutCode.SCHEDULER, LeftOutCode.COUNTED)
    first = next((entry for entry in left_out if entry.code not in right), None)
    if request.strict and first is not None:
        raise Rejected(f"{request.jobs_source}: job {first.job_id}: {first.reason}")


def observe(request: RoundRequest, settings: RoundSettings, log: Log) -> Snapshot:
    """Return the snapshot of now."""
    site, planning = request.sites[0].site, request.sites[0].planning
    queue = _queue(request, site.name)
    found = fitting_jobs(site, queue.jobs, request.jobs_source)
    left_out = (*queue.left_out, *found.left_out)
    refuse_left_out(request, left_out)
    snapshot = site_snapshot(site, planning, found.jobs, request.horizon, settings.objective)
    held = queue.too_old(request.now_s, settings.queue_stale_after_s)
    snapshot = msgspec.structs.replace(snapshot, left_out=left_out, starts_held=held)
    snapshot = with_observed_nodes(snapshot, queue, request, settings, log)
    snapshot = with_period_budgets(snapshot, planning, request.store, request.now_s, log)
    snapshot = with_demand(snapshot, planning, request.store, request.now_s)
    return snapshot if request.what_if is None else what_if(snapshot, request.what_if)


def with_observed_nodes(
    snapshot: Snapshot, queue: StoreQueue, request: RoundRequest, settings: RoundSettings, log: Log
) -> Snapshot:
    """Return the snapshot with what runs on its nodes, nodes that are down or off, and the state from telemetry.

    The queue may name foreign nodes.
    """
    down, off = {*request.down_nodes, *queue.down_nodes}, {*request.off_nodes, *queue.off_nodes}
    snapshot = observed_nodes(snapshot, down, off)
    _tell_inputs(snapshot, request, log)
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
    idle = {*snapshot.off_nodes, *snapshot.down_nodes} - busy_nodes(snapshot)
    stale = tuple(node for node in state.stale if node not in idle)
    nodes = len(SiteIndex.of(snapshot.site).rack_of)
    share = len(stale) / max(1, nodes)
    alarm = share > settings.stale_share
    if stale:
        (log.warning if alarm else log.info)("stale_nodes", nodes=len(stale), share=share)
    if not request.dry_run:
        detail = f"{len(stale)} of {nodes} nodes without fresh telemetry: no job is raised"
        _alarm(store, snapshot, "stale_telemetry", detail if alarm else "", "telemetry is fresh")
    worst = (*snapshot.stale_nodes, *(node for node in stale if node not in snapshot.stale_nodes))
    snapshot = msgspec.structs.replace(snapshot, stale_nodes=worst, allow_raises=not alarm)
    if settings.learn_days == 0:
        return snapshot
    return learn_from_telemetry(store, snapshot, request.now_s, settings, keep=not request.dry_run)


def _tell_inputs(snapshot: Snapshot, request: RoundRequest, log: Log) -> None:
    """Log files that do not cover the plan, jobs that are left out and an old queue, and raise or end their alarms."""
    site = snapshot.site.name
    for line in snapshot.stale_forecasts:
        log.warning("stale_forecast", site=site, detail=line)
    for entry in snapshot.left_out[:_MOST_LOGGED]:
        log.warning("left_out", site=site, job=entry.job_id, code=entry.code, reason=entry.reason)
    if snapshot.starts_held:
        log.warning("stale_queue", site=site, detail=snapshot.starts_held)
    if request.store is not None and not request.dry_run:
        detail = "; ".join(snapshot.stale_forecasts)
        _alarm(request.store, snapshot, "stale_forecast", detail, "all files cover the plan")
        held = snapshot.starts_held and f"nothing starts: {snapshot.starts_held}"
        _alarm(request.store, snapshot, "stale_queue", held, "the queue is fresh")


def _alarm(store: Store, snapshot: Snapshot, kind: str, trouble: str, fine: str) -> None:
    """Write the state of an alarm: active with the trouble, or ended where there is none."""
    tags = {"site": snapshot.site.name, "zone": snapshot.site.name, "kind": kind}
    fields: dict[str, float | str] = {"active": float(bool(trouble)), "detail": trouble or fine}
    store.write(encode(Point("alert", tags, fields, snapshot.taken_s * 1000)))


def observed(request: RoundRequest, settings: RoundSettings, log: Log) -> tuple[Snapshot, Plan | None]:
    """Return the snapshot of now with storage content and the last plan's decisions, and the last plan."""
    snapshot = observe(request, settings, log)
    previous = last_plan(request, snapshot.site.name, log)
    snapshot = with_storage_content(snapshot, previous, request.store, request.now_s)
    return msgspec.structs.replace(snapshot, planned=still_planned(previous, snapshot)), previous


def _with_demand_notes(plan: Plan, request: RoundRequest) -> Plan:
    """Return the plan with a note for each demand charge: its highest power against the month's peak so far."""
    planning = request.sites[0].planning
    if not planning.billing.demand_charges:
        return plan
    return msgspec.structs.replace(plan, notes=(*plan.notes, *demand_notes(plan, planning)))


def note_owners(store: Store | None, snapshot: Snapshot, previous: Plan | None) -> None:
    """Write who pays for jobs that the last plan did not have so; before the plan, so that none is missed."""
    if store is not None:
        points = owner_points(snapshot, None if previous is None else previous.snapshot)
        if lines := b"".join(map(encode, points)):
            store.write(lines)


def run_round(
    request: RoundRequest, settings: RoundSettings, stop: Callable[[], bool], log: Log, created_s: int
) -> Plan:
    """Run a round and return the plan in force after it."""
    clock = request.clock or RoundClock.start(request.seconds)
    snapshot, previous = observed(request, settings, log)
    plan_id = snapshot_hash(snapshot)
    if previous is not None and previous.plan_id == plan_id and not check_encoded(previous, verify_plan)[1]:
        log.info("unchanged", plan_id=plan_id[:12])
        if not request.dry_run:
            is_there = request.out is None or request.out.exists()
            begin_archive(request.archive, log)
            publish(previous, request.store, None if is_there else request.out)  # it may have come from the store
        return previous
    clock.mark("read")

    def make(seconds: float, keep_peaks: bool) -> Plan:
        return make_plan(
            snapshot,
            settings,
            seconds,
            created_s=created_s,
            stop=stop,
            log=log,
            previous=previous,
            clock=clock if seconds == request.seconds else RoundClock.start(seconds),
            keep_peaks=keep_peaks,
        )

    plan = better_of_two(make, snapshot, request.seconds, log)
    plan = _with_demand_notes(plan, request)
    if not request.dry_run:
        note_owners(request.store, snapshot, previous)
        keep_round(request.archive, RoundInputs((snapshot,), settings, request.seconds, created_s), plan, previous, log)
        publish(plan, request.store, request.out)
    clock.mark("publish")
    clock.warn_when_late(log)
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
