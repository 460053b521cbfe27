"""The Philly trace as CSV: timestamp, duration, num_gpus, gpu_time, cluster."""

import csv
from pathlib import Path

from powerhall.jobs.job_reader import JobReader, checked_trace, header_cells, require_columns
from powerhall.jobs.model import Job
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import open_text, parse_time

__all__ = ["PHILLY", "read_philly"]


def read_philly(path: str | Path) -> tuple[Job, ...]:
    """Read the Philly trace (timestamp, duration in s, num_gpus, gpu_time, cluster); the id is the line's number.

    Jobs of no duration are left out. The virtual cluster becomes the job class.
    """
    rows = csv.DictReader(open_text(path))
    require_columns(path, list(rows.fieldnames or ()), ("timestamp", "duration", "num_gpus", "cluster"))
    jobs: list[Job] = []
    for number, row in enumerate(rows, 2):
        try:
            duration_s, gpus, submit_s = float(row["duration"]), int(row["num_gpus"]), parse_time(row["timestamp"])
        except (TypeError, ValueError) as error:
            raise Rejected.field(str(path), f"line {number}", ",".join(map(str, row.values())), str(error)) from None
        if duration_s > 0:
            jobs.append(Job(f"philly-{number}", gpus, duration_s, submit_s, job_class=row["cluster"]))
    return checked_trace(path, jobs)


def _recognises(first_line: str) -> bool:
    return {"timestamp", "num_gpus"} <= header_cells(first_line)


PHILLY = JobReader("philly", "Philly CSV", read_philly, _recognises)
