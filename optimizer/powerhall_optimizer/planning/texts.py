"""Texts of a plan: reasons, changes that would help, notes. No code reads them back."""

from collections.abc import Callable, Sequence

from powerhall.units import format_power
from powerhall_optimizer.physics.site_conditions import time_text
from powerhall_optimizer.placement.placement_reasons import PlacementCause, PlacementReason
from powerhall_optimizer.planning.wait_reasons import Shortage, Slowdown, WaitReason
from powerhall_optimizer.problem.no_option import NoOption, NoOptionCause
from powerhall_optimizer.problem.resources import Resource, ResourceKind

__all__ = [
    "left_out_text",
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
    "what_if_texts",
]

GREEDY_NOTE = "fallback: planned by the plain greedy, without the solver"
KEPT_NOTE = "fallback: keeps what runs and starts nothing new"
OPTIMAL_NOTE = "optimality proven by CP-SAT"
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
    NoOptionCause.AFTER_HORIZON: "may start only after the end of the horizon",
    NoOptionCause.NO_NODES_IN_HALL: "hall {hall!r} has no nodes of its type",
}

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
    )


def _placement_text(reason: PlacementReason) -> str:
    if reason.cause is PlacementCause.RAMP:
        rate = f"{format_power(60 * reason.rate_w_per_s)}/min {'up' if reason.is_up else 'down'}"
        return f"the ramp limit of {reason.site} ({rate}) at {time_text(reason.time_s)}"
    size = f"{reason.gpus} free GPUs on one node" if reason.one_node else "enough empty nodes"
    return f"no row or rack of {reason.hall} has {size} within its limits (enough are free in all, but scattered)"


def left_out_text(reason: PlacementReason) -> str:
    """Write why placement left a job out."""
    match reason.cause:
        case PlacementCause.NO_NODES:
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
    return "GPUs" if resource.is_gpus else "cooling" if resource.is_cooling else "power"


def shortage_text(shortage: Shortage) -> str:
    """Write an amount to add: "+12 kW of power in hall1"."""
    resource = shortage.resource
    if resource.is_gpus:
        return f"+{shortage.amount} {resource.node_type or 'nodes of'} GPUs in {resource.zone}"
    if resource.is_cooling:
        what = "cooling in" if resource.medium == "all" else f"{resource.medium} cooling in"
    else:
        what = _POWER_TEXTS.get(resource.kind, "power in")
    return f"+{format_power(shortage.amount)} of {what} {resource.zone}"


def shortages_text(shortages: Sequence[Shortage], when: When) -> str:
    """Write where and when an alternative falls short."""
    return ", ".join(f"{shortage_text(s)} from {when(s.first)} to {when(s.last + 1)}" for s in shortages)


def wait_text(reason: WaitReason, when: When) -> str:
    """Write why a job does not start within the horizon."""
    if reason.fits_at is not None:
        return f"could start at {when(reason.fits_at)}, but within the horizon that is not worth its cost"
    text = "no start within the horizon fits beside jobs of more value"
    if reason.nearest:
        kinds = dict.fromkeys(f"{s.resource.zone} ({resource_kind_text(s.resource)})" for s in reason.nearest)
        text += f"; short of {', '.join(kinds)}"
    return text


def what_if_texts(reason: WaitReason, when: When) -> tuple[str, ...]:
    """Write the changes that would start a job: shortages of each alternative, and the weight from which it pays."""
    texts = [f"{when(a.start)} in {a.choice.mode} if {shortages_text(a.shortages, when)}" for a in reason.short]
    if reason.weight_needed is not None:
        texts.append(
            f"at about weight {reason.weight_needed:.3g} (now {reason.weight:g}) it pays for what it displaces"
        )
    return tuple(texts)


def slowdowns_text(slowdowns: Sequence[Slowdown], when: When) -> str:
    """Write why a planned job does not run in its fastest mode or not at once; "" when it does."""
    return "; ".join(_slowdown_text(slowdown, when) for slowdown in slowdowns)


def _slowdown_text(slowdown: Slowdown, when: When) -> str:
    what = f"not at {when(slowdown.start)}" if slowdown.mode is None else f"{slowdown.own_mode}, not {slowdown.mode}"
    return f"{what}: {shortages_text(slowdown.shortages, when) or 'the plan has more value this way'}"


def preempted_text(reason: str) -> str:
    """Write why a running job stops for others."""
    return f"stopped so that jobs of more value can run; {reason}"


def not_explained_text() -> str:
    """Write the reason of a job beyond those that are explained in depth."""
    return "no start fits beside jobs of more value; `explain` tells more"


def shed_text(zones: Sequence[str], stop_s: int | None) -> str:
    """Write why a running job is stopped for a budget: now, or at `stop_s`."""
    when = "now" if stop_s is None else f"at {time_text(stop_s)}"
    return (
        f"stopped {when}: even in its lowest mode it would break {', '.join(zones)} beside the jobs that are kept "
        "before it (those that may not be preempted first, then by weight, then the longest-running)"
    )


def shed_note_text(jobs: int, zones: Sequence[str]) -> str:
    """Write the plan's note of running jobs that are shed."""
    return (
        f"{jobs} running jobs stop because {', '.join(zones)} cannot carry what runs even in its lowest modes; "
        "jobs that may be preempted go first, then those of least weight, then the youngest"
    )


def together_text(others: Sequence[str], gap: float) -> str:
    """Write the note of a plan that was made together with those of other sites."""
    return f"planned together with {', '.join(others)}: gap of all sites {gap:.2%}"
