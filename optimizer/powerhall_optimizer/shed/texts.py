"""Texts of a shed: reasons in the shed plan, and failures. No code reads them back."""

from powerhall.units import format_power

__all__ = [
    "ended_job",
    "failed_leases",
    "failed_plan",
    "failed_write",
    "gives_way",
    "missing_acks",
    "no_scheduler",
    "not_started",
    "not_stopped",
    "plan_note",
    "unreadable_acks",
]

SLOWED = "slowed by the emergency shed"


def ended_job(is_paused: bool, target_w: float) -> str:
    """Write the reason of a job that was paused or stopped."""
    return f"{'paused' if is_paused else 'stopped'} to bring the site to {format_power(target_w)}"


def not_started(target_w: float) -> str:
    """Write the reason of a job that does not start meanwhile."""
    return f"not started while the site sheds to {format_power(target_w)}"


def plan_note(target_w: float, rungs: int, of: int) -> str:
    """Write the note of a shed plan."""
    return f"emergency shed to {format_power(target_w)}: {rungs} of {of} rungs"


def failed_leases(error: Exception) -> str:
    """Write that leases were not sent."""
    return f"leases: {error}"


def failed_plan(error: Exception) -> str:
    """Write that the shed plan was not handed over."""
    return f"plan: {error}"


def no_scheduler(jobs: int) -> str:
    """Write that jobs are to be stopped and no scheduler is named."""
    return f"{jobs} jobs are to be paused or stopped: no scheduler was named that could"


def failed_write(scheduler: str, subject: str, error: str) -> str:
    """Write that a scheduler refused a write."""
    return f"{scheduler}: {subject}: {error}"


def not_stopped(scheduler: str, subject: str, reason: str) -> str:
    """Write that a scheduler left a job running that the shed stops."""
    return f"{scheduler}: {subject}: not stopped: {reason}"


def gives_way(left: str) -> str:
    """Write that a shed ended before it was done, because another event has to act; it is tried again."""
    return f"{left}: another event had to act first; this one goes on after it"


def unreadable_acks(error: Exception) -> str:
    """Write that the nodes' confirmations could not be read."""
    return f"confirmations: {error}"


def missing_acks(missing: int, of: int) -> str:
    """Write how many nodes have not confirmed their lease in time."""
    return f"confirmations: {missing} of {of} nodes have not confirmed that their caps hold"
