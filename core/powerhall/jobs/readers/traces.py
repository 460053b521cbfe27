"""Readers of public trace formats: the Philly CSV, Slurm's `sacct --parsable2`, and SWF.

A trace says what ran, not what each job is worth: weights stay 1 unless the format carries a priority.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from powerhall.jobs.model import Job, check_jobs
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import open_text, parse_time

__all__ = ["read_philly", "read_sacct", "read_swf"]


def _need(path: str | Path, header: list[str], columns: tuple[str, ...]) -> None:
    for name in columns:
        if name not in header:
            raise Rejected.field(str(path), "header", ",".join(header)[:80], f"must have the column {name}")


def _some(path: str | Path, jobs: list[Job]) -> tuple[Job, ...]:
    if not jobs:
        raise Rejected(f"{path}: no jobs: must have at least one that used a GPU")
    return check_jobs(jobs, str(path))


def read_philly(path: str | Path) -> tuple[Job, ...]:
    """Read the Philly trace (timestamp, duration in s, num_gpus, gpu_time, cluster); the id is the line's number.

    Jobs of no duration are left out. The virtual cluster becomes the job class.
    """
    rows = csv.DictReader(open_text(path))
    _need(path, list(rows.fieldnames or ()), ("timestamp", "duration", "num_gpus", "cluster"))
    jobs: list[Job] = []
    for number, row in enumerate(rows, 2):
        try:
            duration_s, gpus, submit_s = float(row["duration"]), int(row["num_gpus"]), parse_time(row["timestamp"])
        except (TypeError, ValueError) as error:
            raise Rejected.field(str(path), f"line {number}", ",".join(map(str, row.values())), str(error)) from None
        if duration_s > 0:
            jobs.append(Job(f"philly-{number}", gpus, duration_s, submit_s, job_class=row["cluster"]))
    return _some(path, jobs)


_ELAPSED = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.\d+)?")
_GPUS = re.compile(r"gres/gpu(?:=(\d+)|:[^=,]+=(\d+))")


def _elapsed(text: str) -> float:
    found = _ELAPSED.fullmatch(text)
    if found is None:
        raise ValueError("must be a time such as '1-02:03:04'")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def _sacct_gpus(tres: str) -> int:
    found = _GPUS.findall(tres)
    plain = [int(a) for a, _ in found if a]
    return plain[0] if plain else sum(int(b) for _, b in found)


def read_sacct(path: str | Path) -> tuple[Job, ...]:
    """Read `sacct --parsable2 --format=JobIDRaw,Submit,Elapsed,AllocTRES[,Partition,Priority]` output.

    Job steps and jobs that used no GPU are left out. The partition becomes the job class.
    """
    rows = csv.DictReader(open_text(path), delimiter="|", quoting=csv.QUOTE_NONE)
    _need(path, list(rows.fieldnames or ()), ("Submit", "Elapsed", "AllocTRES"))
    id_column = "JobIDRaw" if "JobIDRaw" in (rows.fieldnames or ()) else "JobID"
    _need(path, list(rows.fieldnames or ()), (id_column,))
    jobs: list[Job] = []
    for number, row in enumerate(rows, 2):
        if row[id_column] is None or "." in row[id_column]:
            continue
        try:
            gpus, duration_s = _sacct_gpus(row["AllocTRES"] or ""), _elapsed(row["Elapsed"] or "")
            submit_s = parse_time(row["Submit"] or "")
        except ValueError as error:
            raise Rejected.field(str(path), f"line {number}", "|".join(map(str, row.values())), str(error)) from None
        if gpus > 0 and duration_s > 0:
            jobs.append(Job(row[id_column], gpus, duration_s, submit_s, job_class=row.get("Partition") or "default"))
    return _some(path, jobs)


def _swf_rows(path: str | Path) -> Iterator[tuple[int, list[float]]]:
    for number, line in enumerate(open_text(path), 1):
        if not line.strip() or line.startswith(";"):
            continue
        try:
            cells = [float(cell) for cell in line.split()]
        except ValueError as error:
            raise Rejected.field(str(path), f"line {number}", line.strip(), str(error)) from None
        if len(cells) < 18:
            raise Rejected.field(str(path), f"line {number}", line.strip(), "must have 18 numbers")
        yield number, cells


def read_swf(path: str | Path, gpus_per_processor: float = 1.0) -> tuple[Job, ...]:
    """Read the Standard Workload Format (18 columns, https://www.cs.huji.ac.il/labs/parallel/workload/swf.html).

    Processors become GPUs times `gpus_per_processor`; jobs that never ran are left out; the header's UnixStartTime is
    the origin of the submit times.
    """
    origin = 0.0
    for line in open_text(path):
        found = re.match(r";\s*UnixStartTime:\s*(\d+)", line)
        if found:
            origin = float(found[1])
    jobs: list[Job] = []
    for _, cells in _swf_rows(path):
        run_s, processors = cells[3], max(cells[4], cells[7])
        if run_s > 0 and processors > 0:
            gpus = max(1, round(processors * gpus_per_processor))
            jobs.append(Job(f"swf-{int(cells[0])}", gpus, run_s, origin + cells[1], job_class=f"queue{int(cells[14])}"))
    return _some(path, jobs)
