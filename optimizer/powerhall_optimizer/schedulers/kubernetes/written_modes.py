"""The modes that rounds wrote to jobs, kept in the leader lease: there no tenant can write.

A tenant may write whatever it wants on its own job. What a job says of its mode is believed where the lease says the
same; any other job counts at the mode of most power.
"""

import hashlib
from collections.abc import Mapping

from powerhall.plan.plan import Plan
from powerhall.runtime.decode.json_data import decode_json
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import parse_time
from powerhall_optimizer.schedulers.kubernetes.objects import Object, job_id, notes_of, part

__all__ = ["MODES", "known_modes", "mode_key", "modes_text", "planned_modes"]

MODES = "modes"
"""Annotation of the lease: by mode, the marks of its jobs."""
_MOST = 8_000
"""More marks than these are not kept: annotations have 256 KiB. The jobs beyond them count at their worst."""


def mode_key(raw: Object) -> str:
    """Return the mark of a job: one that is made anew under the same name has another."""
    made_at = part(raw, "metadata").get("creationTimestamp")
    return _mark(job_id(raw), parse_time(str(made_at)) if made_at else 0.0)


def planned_modes(plan: Plan) -> dict[str, tuple[str, str]]:
    """Return mark and mode of the plan's jobs, by job; without the modes of most power, which need no mark."""
    made_s = {job.job_id: job.submit_s for job in plan.snapshot.jobs}
    kinds = plan.snapshot.site.node_types
    worst = {name: max(kind.modes, key=lambda mode: mode.gpu_power_w).name for name, kind in kinds.items()}
    return {
        job.job_id: (_mark(job.job_id, made_s[job.job_id]), job.mode)
        for job in plan.assignments
        if job.job_id in made_s and job.mode != worst.get(job.node_type)
    }


def known_modes(lease: Object) -> dict[str, str]:
    """Return the mode of each mark; none where the lease says none that can be read."""
    try:
        found = decode_json(notes_of(lease).get(MODES, "{}").encode(), dict[str, str], "modes in the leader lease")
    except Rejected:
        return {}
    return {mark: mode for mode, marks in found.items() for mark in marks.split()}


def modes_text(modes: Mapping[str, str]) -> dict[str, str]:
    """Return marks by mode, as the annotation has them."""
    marks: dict[str, list[str]] = {}
    for mark, mode in sorted(modes.items())[:_MOST]:
        marks.setdefault(mode, []).append(mark)
    return {mode: " ".join(each) for mode, each in marks.items()}


def _mark(name: str, made_s: float) -> str:
    return hashlib.sha256(f"{name} {int(made_s)}".encode()).hexdigest()[:10]
