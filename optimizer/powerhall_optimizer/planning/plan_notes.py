"""Notes of a plan on its time and on running jobs that are shed."""

from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.running_jobs import RetainedJobs

__all__ = ["shed_note", "shed_zones", "time_notes"]


def time_notes(cut: tuple[str, ...], compiled_s: float) -> tuple[str, ...]:
    """Return the plan's notes of stages that were cut short and of compiling."""
    notes = (texts.cut_short_text(cut),) if cut else ()
    return (*notes, texts.compiled_text(compiled_s)) if compiled_s else notes


def shed_zones(retained: RetainedJobs) -> tuple[str, ...]:
    """Return the names of the limits for which running jobs stop."""
    return tuple(sorted({str(resource) for broken in retained.broken.values() for resource in broken}))


def shed_note(retained: RetainedJobs) -> tuple[str, ...]:
    """Return the plan's note of running jobs that are shed, if there are any."""
    broken = sorted({resource for found in retained.broken.values() for resource in found}, key=str)
    return (texts.shed_note_text(len(retained.stops), broken),) if retained.stops else ()
