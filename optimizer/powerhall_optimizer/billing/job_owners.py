"""Who pays for a job by what its queue said: written when a round first sees the job, read by bills for years."""

from collections.abc import Iterator, Mapping

from powerhall.jobs import Job
from powerhall.plan.plan import Snapshot
from powerhall.store import Query, Select, Store
from powerhall.store.line_protocol import Point

__all__ = ["owner_points", "read_job_owners"]

_LONGEST_S = 400 * 86_400.0
"""Longest time from when a round first sees a job to a bill that has it."""
_FIELDS = ("job", "project", "tenant")


def owner_points(now: Snapshot, before: Snapshot | None) -> Iterator[Point]:
    """Yield the owners of jobs whose queue says some and that the last plan did not have so."""
    known = set() if before is None else {_said(job) for job in before.jobs}
    new = [said for said in map(_said, now.jobs) if any(said[1:]) and said not in known]
    for row, said in enumerate(new):
        fields: dict[str, float | str] = {name: text for name, text in zip(_FIELDS, said, strict=True) if text}
        yield Point("job_owner", {"site": now.site.name, "row": f"{row:06d}"}, fields, now.taken_s * 1000)


def _said(job: Job) -> tuple[str, str, str]:
    return job.billed_as or job.job_id, job.project or "", job.tenant or ""


def read_job_owners(store: Store, site: str, end_s: float) -> Mapping[str, tuple[str, str]]:
    """Return (project, tenant) by job as the queue said last."""
    query = Query("job_owner", tuple(map(Select, _FIELDS)), {"site": site}, ("row",))
    rows = sorted(store.query(query, max(0.0, end_s - _LONGEST_S), end_s), key=lambda row: row.time_s)
    named = ([str(row.values.get(name) or "") for name in _FIELDS] for row in rows)
    return {job: (project, tenant) for job, project, tenant in named if job}
