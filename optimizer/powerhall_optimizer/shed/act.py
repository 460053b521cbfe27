"""A shed plan: the plan in force with the ladder's first rungs taken, ready for schedulers and leases."""

import math

import msgspec

from powerhall.jobs import Job
from powerhall.plan.plan import Assignment, Plan, Snapshot, WaitCode, Waiting, gpu_power_w, gpu_speed, snapshot_hash
from powerhall.runtime.errors import PowerhallError
from powerhall.site.curtailment import Event
from powerhall_optimizer.leases.event_limits import with_event_limits
from powerhall_optimizer.physics.plan_loads import plan_loads
from powerhall_optimizer.planning.assemble import with_loads
from powerhall_optimizer.shed import texts
from powerhall_optimizer.shed.ladder import ActionKind, Ladder, by_job
from powerhall_optimizer.shed.storage import with_useful_storage
from powerhall_optimizer.verify.value import value_and_bound

__all__ = ["shed_modes", "shed_plan", "with_frozen_budgets"]


def shed_modes(steps: Ladder, rungs: int) -> dict[str, str]:
    """Return the mode to cap each touched job's nodes to; of a paused job its lowest mode."""
    return {job_id: actions[-1].mode for job_id, actions in by_job(steps.actions[:rungs]).items()}


def shed_plan(plan: Plan, steps: Ladder, rungs: int, target_w: float) -> Plan:
    """Return the plan after `rungs` rungs, its zones not yet counted (see `with_frozen_budgets`).

    Lowered jobs run on, longer; paused and stopped ones wait with a reason, and so do jobs that would start later.
    """
    taken = by_job(steps.actions[:rungs])
    modes = shed_modes(steps, rungs)
    kept: list[Assignment] = []
    waiting = list(plan.waiting)
    jobs = {job.job_id: job for job in plan.snapshot.jobs}
    site = (plan.snapshot.site.name,)
    for entry in plan.assignments:
        actions = taken.get(entry.job_id, [])
        ended = next((a for a in actions if a.kind is not ActionKind.LOWER), None)
        if ended is not None:
            text = texts.ended_job(ended.kind is ActionKind.PAUSE, target_w)
            waiting.append(Waiting(entry.job_id, WaitCode.SHED, text, site))
        elif entry.start_s > steps.time_s:
            waiting.append(Waiting(entry.job_id, WaitCode.SHED, texts.not_started(target_w), site))
        else:
            slower = modes.get(entry.job_id)
            kept.append(_lowered(plan, entry, slower, jobs[entry.job_id]) if slower else entry)
    note = texts.plan_note(target_w, rungs, len(steps.actions))
    return msgspec.structs.replace(
        plan, status="fallback", assignments=tuple(kept), waiting=tuple(waiting), notes=(*plan.notes, note)
    )


def with_frozen_budgets(after: Plan, target_w: float, time_s: float, until_s: float) -> Plan:
    """Return the shed plan with budgets that let nothing take the freed power until `until_s`, its zones counted.

    The site's budget is the target (or what is left, where the ladder was too short), a hall's what it draws after the
    shed: a scheduler that reads the plan's budgets starts nothing in the room that the shed has made.
    """
    draft = with_useful_storage(msgspec.structs.replace(after, zones=(), plants=()))
    snapshot = after.snapshot
    slot = min(snapshot.slots - 1, max(0, int(time_s - snapshot.start_s) // snapshot.slot_s))
    start_s = float(snapshot.start_s + slot * snapshot.slot_s)
    loads = plan_loads(draft).zone_w
    levels = {snapshot.site.name: target_w} | dict.fromkeys((hall.zone for hall in snapshot.site.halls), 0.0)
    events = []
    for zone, level_w in levels.items():
        left_w = float(max(loads[zone][slot:]))
        events.append(Event(zone, start_s, max(until_s, start_s + snapshot.slot_s), max(level_w, left_w + 1.0)))
    narrow: Snapshot = with_event_limits(snapshot, events)
    draft = msgspec.structs.replace(draft, snapshot=narrow, plan_id=snapshot_hash(narrow), certificate=None)
    draft = with_loads(draft, {})
    try:
        value, bound = value_and_bound(draft)
    except (ValueError, PowerhallError):  # a job in a mode that the planner would not choose: no value is computed
        value, bound = 0, 0
    gap = (bound - value) / bound if bound > 0 else 0.0
    status = "feasible" if draft.status == "optimal" else draft.status
    return msgspec.structs.replace(draft, value=value, bound=bound, gap=gap, status=status)


def _lowered(plan: Plan, entry: Assignment, name: str, job: Job) -> Assignment:
    """Return the assignment in the lower mode, its end counted as if the job ran in it from its start.

    A plan gives a job one mode. The work done so far in the faster mode makes the job end earlier than that, so power
    is counted for too long rather than too short, and `verify` finds the duration that the mode takes.
    """
    snapshot = plan.snapshot
    kind = snapshot.site.node_types[entry.node_type]
    job_class = snapshot.site.job_classes.get(job.job_class)
    mode = kind.mode(name)
    slots = max(1, math.ceil(job.duration_s / gpu_speed(mode, job_class) / snapshot.slot_s - 1e-9))
    return msgspec.structs.replace(
        entry,
        mode=name,
        gpu_power_w=gpu_power_w(kind, mode, job_class),
        end_s=entry.start_s + slots * snapshot.slot_s,
        reason=texts.SLOWED,
    )
