"""Jobs for tests of the twin."""

from powerhall.jobs.model import Job
from powerhall.timeseries import parse_time

START_S = parse_time("2026-07-15T10:00:00Z")


def job(job_id: str, gpus: int, hours: float, **more: object) -> Job:
    """Return a job that was submitted at the start."""
    return Job(job_id, gpus, hours * 3600, **{"submit_s": START_S, "job_class": "pretrain", **more})
