"""The interface of a reader of job files, and checks that readers of traces share.

A trace has no value per job: weights stay 1 unless the format carries a priority.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from powerhall.jobs.model import Job, check_jobs
from powerhall.runtime.errors import Rejected

__all__ = ["JobReader", "checked_trace", "header_cells", "require_columns"]


@dataclass(frozen=True, slots=True)
class JobReader:
    """A job format: its name, its title in help texts, how a file of it is recognised, and how it is read.

    `recognises` gets the first line without its end; `endings` are lower-case ends of file names.
    """

    name: str
    title: str
    read: Callable[[str | Path], tuple[Job, ...]]
    recognises: Callable[[str], bool]
    endings: tuple[str, ...] = ()


def header_cells(first_line: str) -> set[str]:
    """Return the cells of a CSV header."""
    return {cell.strip() for cell in first_line.split(",")}


def require_columns(path: str | Path, header: list[str], columns: tuple[str, ...]) -> None:
    """Refuse a header that lacks one of the columns."""
    for name in columns:
        if name not in header:
            raise Rejected.field(str(path), "header", ",".join(header)[:80], f"must have the column {name}")


def checked_trace(path: str | Path, jobs: list[Job]) -> tuple[Job, ...]:
    """Return the jobs of a trace if there are any and each is sound."""
    if not jobs:
        raise Rejected(f"{path}: no jobs: must have at least one that used a GPU")
    return check_jobs(jobs, str(path))
