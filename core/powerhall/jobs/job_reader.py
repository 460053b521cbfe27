"""The interface of a reader of job files, and checks that readers of traces share.

A trace has no value per job: weights stay 1 unless the format carries a priority.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

from powerhall.jobs.left_out import JobList
from powerhall.jobs.model import Job, check_jobs
from powerhall.runtime.errors import Rejected

__all__ = ["JobReader", "checked_trace", "header_cells", "no_jobs", "require_columns"]


@dataclass(frozen=True, slots=True)
class JobReader:
    """A job format: its name, its title in help texts, how a file of it is recognised, and how it is read.

    `recognises` gets the first line without its end; `endings` are lower-case ends of file names. `read_list` reads a
    queue and leaves wrong jobs out. Both take the time zone of times without an offset, None for UTC.
    """

    name: str
    title: str
    read: Callable[[str | Path, tzinfo | None], tuple[Job, ...]]
    recognises: Callable[[str], bool]
    endings: tuple[str, ...]
    read_list: Callable[[str | Path, tzinfo | None], JobList]
    read_trace: Callable[[str | Path, tzinfo | None], JobList] | None = None
    """Reads the jobs that ended, where `read_list` reads a live queue differently."""


def header_cells(first_line: str) -> set[str]:
    """Return the cells of a CSV header."""
    return {cell.strip() for cell in first_line.split(",")}


def require_columns(path: str | Path, header: list[str], columns: tuple[str, ...]) -> None:
    """Refuse a header that lacks one of the columns."""
    for name in columns:
        if name not in header:
            raise Rejected.field(str(path), "header", ",".join(header)[:80], f"must have the column {name}")


def no_jobs(path: str | Path, why: str = "") -> Rejected:
    """Return the refusal of a trace without jobs."""
    return Rejected(f"{path}: no jobs: must have at least one that used a GPU{f'; {why}' if why else ''}")


def checked_trace(path: str | Path, jobs: list[Job]) -> tuple[Job, ...]:
    """Return the jobs of a trace if there are any and each is sound."""
    if not jobs:
        raise no_jobs(path)
    return check_jobs(jobs, str(path))
