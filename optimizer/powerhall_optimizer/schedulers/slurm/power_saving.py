"""Power saving: nodes that the plan leaves idle are powered down, and up again ahead of their next job."""

from collections.abc import Sequence

from powerhall.hostlist import compress, expand
from powerhall.plan.plan import Plan
from powerhall.site.index import SiteIndex
from powerhall_optimizer.schedulers.slurm.records import NodeRecord
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings

__all__ = ["is_powering", "power_changes"]

_DOWN = {"POWER_DOWN", "POWERING_DOWN", "POWERED_DOWN"}
_UP = {"POWER_UP", "POWERING_UP"}


def is_powering(states: frozenset[str], wanted: str) -> bool:
    """Return whether a node is in the state `power_down` or `power_up`, or on its way."""
    return bool(states & _DOWN) if wanted == "power_down" else bool(states & _UP) or not states & _DOWN


def power_changes(
    plan: Plan, nodes: Sequence[NodeRecord], settings: SlurmSettings, now_s: float
) -> list[tuple[str, tuple[str, ...]]]:
    """Return (`power_down` or `power_up`, nodes); only idle nodes of the site are powered down."""
    if not settings.power_save_s:
        return []
    next_start_s: dict[str, float] = {}
    for job in plan.assignments:
        if job.end_s <= now_s:
            continue
        for placement in job.placements:
            for name in expand(placement.nodes):
                next_start_s[name] = min(next_start_s.get(name, job.start_s), job.start_s)
    known = SiteIndex.of(plan.snapshot.site).rack_of
    down: list[str] = []
    up: list[str] = []
    for node in nodes:
        if node.name not in known:
            continue
        start_s = next_start_s.get(node.name, float("inf"))
        is_idle = "IDLE" in node.states and not node.states & (_DOWN | _UP | {"DRAIN", "DOWN"})
        if is_idle and start_s >= now_s + settings.power_save_s:
            down.append(node.name)
        elif "POWERED_DOWN" in node.states and not node.states & _UP and start_s < now_s + settings.resume_lead_s:
            up.append(node.name)
    return [(state, tuple(sorted(names))) for state, names in (("power_down", down), ("power_up", up)) if names]


def power_command(state: str, names: Sequence[str]) -> str:
    """Return the scontrol command."""
    return f"update nodename={compress(names)} state={state}"
