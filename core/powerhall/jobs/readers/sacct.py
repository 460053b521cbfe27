"""Slurm's accounting: the output of `sacct --parsable2`."""

import csv
import re
from pathlib import Path

from powerhall.jobs.job_reader import JobReader, checked_trace, require_columns
from powerhall.jobs.model import Job
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import open_text, parse_time

__all__ = ["SACCT", "read_sacct"]

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
    require_columns(path, list(rows.fieldnames or ()), ("Submit", "Elapsed", "AllocTRES"))
    id_column = "JobIDRaw" if "JobIDRaw" in (rows.fieldnames or ()) else "JobID"
    require_columns(path, list(rows.fieldnames or ()), (id_column,))
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
    return checked_trace(path, jobs)


def _recognises(first_line: str) -> bool:
    return "|" in first_line


SACCT = JobReader("sacct", "sacct --parsable2", read_sacct, _recognises)
