"""A shed plan: the plan in force with the ladder's first rungs taken, ready for schedulers and leases."""

import msgspec

from powerhall.plan import Assignment, Plan, Waiting, gpu_power_w, gpu_speed
from powerhall.units import format_power
from powerhall_optimizer.shed.ladder import Ladder, by_job

__all__ = ["shed_plan"]


def shed_plan(plan: Plan, steps: Ladder, rungs: int, target_w: float) -> tuple[Plan, dict[str, str]]:
    """Return the plan after `rungs` rungs, and the mode in which each touched job's nodes are to be capped.

    Lowered jobs run on, longer; paused and stopped ones wait with a reason, and their nodes are capped to the lowest
    mode at once, so that the power falls before the scheduler has acted. Jobs that would start later in the plan wait.
    """
    taken = by_job(steps.actions[:rungs])
    modes = {job_id: actions[-1].mode for job_id, actions in taken.items()}
    kept: list[Assignment] = []
    waiting = list(plan.waiting)
    aim = format_power(target_w)
    for entry in plan.assignments:
        actions = taken.get(entry.job_id, [])
        ended = next((a for a in actions if a.kind in ("pause", "stop")), None)
        if ended is not None:
            verb = "paused" if ended.kind == "pause" else "stopped"
            waiting.append(
                Waiting(entry.job_id, "shed", f"{verb} to bring the site to {aim}", (plan.snapshot.site.name,))
            )
        elif entry.start_s > steps.time_s:
            waiting.append(
                Waiting(entry.job_id, "shed", f"not started while the site sheds to {aim}", (plan.snapshot.site.name,))
            )
        else:
            kept.append(_lowered(plan, entry, modes[entry.job_id], steps.time_s) if actions else entry)
    note = f"emergency shed to {aim}: {rungs} of {len(steps.actions)} rungs"
    after = msgspec.structs.replace(
        plan, status="fallback", assignments=tuple(kept), waiting=tuple(waiting), notes=(*plan.notes, note)
    )
    return after, modes


def _lowered(plan: Plan, entry: Assignment, name: str, now_s: float) -> Assignment:
    site = plan.snapshot.site
    kind = site.node_types[entry.node_type]
    job_class = site.job_classes.get(next(j.job_class for j in plan.snapshot.jobs if j.job_id == entry.job_id))
    old, new = (next(mode for mode in kind.modes if mode.name == n) for n in (entry.mode, name))
    left_s = max(0.0, entry.end_s - now_s) * gpu_speed(old, job_class) / gpu_speed(new, job_class)
    end_s = int(now_s) + -int(-left_s // plan.snapshot.slot_s) * plan.snapshot.slot_s
    return msgspec.structs.replace(
        entry,
        mode=name,
        gpu_power_w=gpu_power_w(kind, new, job_class),
        end_s=end_s,
        reason="slowed by the emergency shed",
    )
