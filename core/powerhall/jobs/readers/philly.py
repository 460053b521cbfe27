"""The Philly trace as CSV: timestamp, duration, num_gpus, gpu_time, cluster."""

from datetime import datetime, tzinfo
from pathlib import Path

from powerhall.jobs.job_reader import JobReader, header_cells, require_columns
from powerhall.jobs.left_out import JobList
from powerhall.jobs.model import Job
from powerhall.jobs.readers.skipped import TraceLines
from powerhall.runtime.decode.bytes_in import open_text
from powerhall.runtime.decode.csv_table import CsvTable
from powerhall.runtime.decode.numbers_in import finite, whole
from powerhall.timeseries import parse_moment, parse_time

__all__ = ["PHILLY", "read_philly", "read_philly_list"]


def read_philly_list(path: str | Path, zone: tzinfo | None = None) -> JobList:
    """Read the Philly trace (timestamp, duration in s, num_gpus, gpu_time, cluster); the id is the line's number.

    Jobs of no duration or GPU, and lines that are none, are passed over and counted. The virtual cluster becomes the
    job class. Times without an offset are local to `zone`; without one they are taken as UTC, which is noted.
    """
    rows = CsvTable(open_text(path, replace=True), str(path))
    require_columns(path, rows.header, ("timestamp", "duration", "num_gpus", "cluster"))
    lines = TraceLines(str(path))
    for number, row in rows:
        try:
            duration_s, gpus = finite(row["duration"] or ""), whole(row["num_gpus"] or "")
            moment = parse_moment(row["timestamp"] or "")
            submit_s = parse_time(row["timestamp"] or "", zone)
        except ValueError:
            lines.skip("with a number or time that is none", number)
            continue
        if isinstance(moment, datetime) and moment.tzinfo is None and zone is None:
            lines.note("times without an offset are taken as UTC; name the cluster's time zone if it is another")
        if duration_s <= 0 or gpus <= 0:
            lines.skip("without a GPU" if gpus <= 0 else "that never ran")
        else:
            lines.add(Job(f"philly-{number}", gpus, duration_s, submit_s, job_class=row["cluster"] or "default"), "")
    return lines.found()


def read_philly(path: str | Path, zone: tzinfo | None = None) -> tuple[Job, ...]:
    """Read the jobs of the Philly trace; see `read_philly_list`."""
    return read_philly_list(path, zone).jobs


def _recognises(first_line: str) -> bool:
    return {"timestamp", "num_gpus"} <= header_cells(first_line)


PHILLY = JobReader("philly", "Philly CSV", read_philly, _recognises, (), read_philly_list)
