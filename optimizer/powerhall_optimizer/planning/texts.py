"""Texts of a plan: reasons, changes that would help, notes. No code reads them back."""

from collections.abc import Callable, Sequence

from powerhall.jobs import Job
from powerhall.jobs.left_out import LeftOut
from powerhall.plan.gpu_parts import gpus_text
from powerhall.plan.plan import Assignment, Changes, Snapshot, Waiting
from powerhall.units import format_power
from powerhall_optimizer.physics.site_conditions import time_text
from powerhall_optimizer.placement.placement_reasons import PlacementCause, PlacementReason
from powerhall_optimizer.planning.wait_reasons import Shortage, Slowdown, WaitReason
from powerhall_optimizer.problem.no_option import NoOption, NoOptionCause
from powerhall_optimizer.problem.resources import Resource, ResourceKind

__all__ = [
    "beside_text",
    "changed_text",
    "changes_text",
    "left_out_text",
    "limits_text",
    "moved_text",
    "no_option_text",
    "not_explained_text",
    "preempted_text",
    "shed_note_text",
    "shed_text",
    "shortages_text",
    "slowdowns_text",
    "together_text",
    "wait_text",
    "waits_beside_text",
]

GREEDY_NOTE = "fallback: planned by the plain greedy, without the solver"
KEPT_NOTE = "fallback: keeps what runs and starts nothing new"
OPTIMAL_NOTE = "optimality proven by the certificate"
NOTHING = "no step of the chain gave a candidate"
_POWER_TEXTS = {
    ResourceKind.IT_POWER: "power in",
    ResourceKind.FACILITY_POWER: "power at the meter of",
    ResourceKind.RACK_POWER: "power of the rows and racks of",
}
_NO_OPTION_TEXTS = {
    NoOptionCause.RUNS_ELSEWHERE: "runs at {job_sites}; this site is {site}",
    NoOptionCause.NOT_RESIDENT: "may run only at {job_sites}; this site is {site}",
    NoOptionCause.NO_NODE_TYPE: "no hall has the node types that it may use",
    NoOptionCause.TOO_LARGE: "needs {gpus} GPUs in one hall; the largest that it may use has {most_gpus}",
    NoOptionCause.NO_BLOCK: "needs {nodes} nodes{parts} within one {level}; the largest has {most_nodes}",
    NoOptionCause.NO_PARTS: "asks for {share} of a GPU; no node type that it may use gives that",
    NoOptionCause.AFTER_HORIZON: "may start only after the end of the horizon",
    NoOptionCause.HELD: "nothing starts now: {why}",
    NoOptionCause.BUDGET: "{why}",
    NoOptionCause.LATE: "cannot end by its deadline {deadline}, even if it starts at once in its fastest mode",
    NoOptionCause.NO_NODES_IN_HALL: "hall {hall!r} has no nodes of its type",
}

_MOST_NAMED = 5
"""Jobs that a note names."""


def input_notes(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the plan's notes on its inputs: files that do not cover it, jobs left out, an old queue."""
    held = (f"nothing starts: {snapshot.starts_held}",) if snapshot.starts_held else ()
    return (*snapshot.stale_forecasts, *_left_out_note(snapshot.left_out), *held)


def _left_out_note(left_out: Sequence[LeftOut]) -> tuple[str, ...]:
    if not left_out:
        return ()
    named = "; ".join(f"{entry.job_id} ({entry.reason})" for entry in left_out[:_MOST_NAMED])
    more = f"; and {len(left_out) - _MOST_NAMED} more" if len(left_out) > _MOST_NAMED else ""
    what = "1 job is left out" if len(left_out) == 1 else f"{len(left_out)} jobs are left out"
    runs = sum(entry.running for entry in left_out)
    power = f"; what the {runs} that run use counts at its worst" if runs else ""
    return (f"{what}: {named}{more}{power}",)


def beside_text(job: Job, host: str) -> str:
    """Write that a job takes a part of a GPU that another one has."""
    return f"takes {gpus_text(job)}, beside {host}"


def waits_beside_text(job: Job, host: Waiting) -> str:
    """Write why a job that shares a GPU waits or stops: because the one that has the GPU does."""
    return f"takes {gpus_text(job)} beside {host.job_id}: {host.reason}"


When = Callable[[int], str]
"""Writes the time of a slot."""


def no_option_text(found: NoOption) -> str:
    """Write why a job can run nowhere within the horizon."""
    if found.cause is NoOptionCause.AT_NO_SITE:
        return "; ".join(f"{name}: {no_option_text(part)}" for name, part in found.by_site)
    return _NO_OPTION_TEXTS[found.cause].format(
        job_sites=", ".join(found.job_sites),
        site=found.site,
        hall=found.hall,
        gpus=found.gpus,
        most_gpus=found.most_gpus,
        deadline=time_text(found.time_s),
        why=found.why,
        nodes=found.nodes,
        parts=f" in parts of {found.part_nodes}, each" if found.part_nodes else "",
        level=found.level,
        most_nodes=found.most_nodes,
        share=found.share,
    )


def _placement_text(reason: PlacementReason) -> str:
    if reason.cause is PlacementCause.RAMP:
        rate = f"{format_power(60 * reason.rate_w_per_s)}/min {'up' if reason.is_up else 'down'}"
        return f"the ramp limit of {reason.site} ({rate}) at {time_text(reason.time_s)}"
    if reason.cause is PlacementCause.NO_BLOCK:
        parts = f", for each of {reason.parts} parts" if reason.parts > 1 else ""
        return f"no {reason.level} of {reason.hall} has {reason.nodes} free nodes together{parts}"
    size = f"{reason.gpus} free GPUs on one node" if reason.one_node else "enough empty nodes"
    return f"no row or rack of {reason.hall} has {size} within its limits (enough are free in all, but scattered)"


def left_out_text(reason: PlacementReason) -> str:
    """Write why placement left a job out."""
    match reason.cause:
        case PlacementCause.NO_NODES | PlacementCause.NO_BLOCK:
            return f"{_placement_text(reason)} at any start that pays"
        case PlacementCause.RAMP:
            return f"its start or end would break {_placement_text(reason)}, and so would any other that pays"
        case PlacementCause.NO_MODE:
            return "its nodes do not take it in any mode"


def moved_text(reason: PlacementReason) -> str:
    """Write why placement moved a job away from its best hall, mode or start."""
    if reason.cause is PlacementCause.RAMP:
        return f"moved to keep {_placement_text(reason)}"
    return f"{_placement_text(reason)} at the start that was best without looking at nodes"


def resource_kind_text(resource: Resource) -> str:
    """Write the kind of a resource, in one word."""
    if resource.kind is ResourceKind.BLOCKS:
        return f"free {resource.level} blocks"
    return "GPUs" if resource.is_gpus else "cooling" if resource.is_cooling else "power"


def shortage_text(shortage: Shortage) -> str:
    """Write what is missing: "12 kW of power in hall1"."""
    resource = shortage.resource
    if resource.kind is ResourceKind.BLOCKS:
        return f"+{shortage.amount} blocks of {resource.size} free nodes in one {resource.level} of {resource.zone}"
    if resource.is_gpus:
        return f"{shortage.amount} {resource.node_type or 'nodes of'} GPUs in {resource.zone}"
    if resource.is_cooling:
        what = "cooling in" if resource.medium == "all" else f"{resource.medium} cooling in"
    else:
        what = _POWER_TEXTS.get(resource.kind, "power in")
    return f"{format_power(shortage.amount)} of {what} {resource.zone}"


def shortages_text(shortages: Sequence[Shortage], when: When) -> str:
    """Write where and when an alternative falls short."""
    return ", ".join(f"{shortage_text(s)} from {when(s.first)} to {when(s.last + 1)}" for s in shortages)


def changed_text(before: Assignment, *, only_nodes: bool, firm: bool, broken: str | None) -> str:
    """Write what the last plan had decided for a job, and why that does not stand."""
    if only_nodes:
        return "moved to other nodes of its hall; those of the last plan are not free for it"
    was = f"the last plan had it at {time_text(before.start_s)} in {before.hall}, {before.mode}"
    if not firm:
        return f"{was}; the plan gains by the change"
    return f"{was}; {broken or lost_text('nodes, or limits of rows, racks, feeds or ramps')}"


def lost_text(limits: str) -> str:
    """Write what a near decision of the last plan breaks."""
    return f"that does not fit any more: {limits}"


def given_up_text(share: float) -> str:
    """Write why a near decision of the last plan was given up that still fits."""
    return f"it makes room for others: the plan gains more than {share:.3g} of its value"


def changes_text(changes: Changes) -> str:
    """Write how much a plan changed of the one before it."""
    forced = f", {changes.forced} of them forced by limits or nodes" if changes.forced else ""
    return (
        f"{changes.changed} of {changes.decisions} decisions of plan {changes.plan_id[:12]} changed{forced}; "
        f"{changes.started} jobs start that waited in it"
    )


def wait_text(reason: WaitReason, when: When) -> str:
    """Write why a job does not start within the horizon."""
    if reason.fits_at is not None:
        return f"could start at {when(reason.fits_at)}, but within the horizon that is not worth its cost"
    text = "no start within the horizon fits beside jobs of more value"
    if reason.nearest:
        kinds = dict.fromkeys(f"{s.resource.zone} ({resource_kind_text(s.resource)})" for s in reason.nearest)
        text += f"; short of {', '.join(kinds)}"
    return text


def slowdowns_text(slowdowns: Sequence[Slowdown], when: When) -> str:
    """Write why a planned job does not run in its fastest mode or not at once; "" when it does."""
    return "; ".join(_slowdown_text(slowdown, when) for slowdown in slowdowns)


def _slowdown_text(slowdown: Slowdown, when: When) -> str:
    what = f"not at {when(slowdown.start)}" if slowdown.mode is None else f"{slowdown.own_mode}, not {slowdown.mode}"
    lacks = shortages_text(slowdown.shortages, when)
    return f"{what}: {'beside the plan it lacks ' + lacks if lacks else 'the plan has more value this way'}"


def preempted_text(reason: str) -> str:
    """Write why a running job stops for others."""
    return f"stopped so that jobs of more value can run; {reason}"


def not_explained_text() -> str:
    """Write the reason of a job beyond those that are explained in depth."""
    return "no start fits beside jobs of more value; `explain` tells more"


def limits_text(broken: Sequence[Resource]) -> str:
    """Write limits by kind and place: "power of hall1, cooling of hall2"."""
    return ", ".join(dict.fromkeys(f"{resource_kind_text(resource)} of {resource.zone}" for resource in broken))


def shed_text(broken: Sequence[Resource], stop_s: int | None) -> str:
    """Write why a running job is stopped for a budget: now, or at `stop_s`."""
    when = "now" if stop_s is None else f"at {time_text(stop_s)}"
    return (
        f"stopped {when}: even in its lowest mode it would break {limits_text(broken)} beside the jobs that are kept "
        "before it (those that may not be preempted first, then by weight, then the longest-running)"
    )


def shed_note_text(jobs: int, broken: Sequence[Resource]) -> str:
    """Write the plan's note of running jobs that are shed."""
    return (
        f"{jobs} running jobs stop because {limits_text(broken)} cannot carry what runs even in its lowest modes; "
        "jobs that may be preempted go first, then those of least weight, then the youngest"
    )


def together_text(others: Sequence[str], gap: float) -> str:
    """Write the note of a plan that was made together with those of other sites."""
    return f"planned together with {', '.join(others)}: gap of all sites {gap:.2%}"


def cut_short_text(stages: Sequence[str]) -> str:
    """Return the note of a plan whose search the deadline cut short."""
    return f"the deadline cut short: {', '.join(stages)}; planned again, the same inputs may give another plan"


def compiled_text(seconds: float) -> str:
    """Return the note of a round that had to compile first."""
    return f"compiled the solver first, in {seconds:.0f} s before the round; powerhall-optimizer warm-up does that once"
