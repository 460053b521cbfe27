"""The Standard Workload Format: 18 columns, comments after `;`.

Lines of status 2 to 4 are parts of a job that was swapped out: where the job has a line of its own they are passed
over, otherwise they are one job together.
"""

import re
from collections.abc import Iterator
from datetime import tzinfo
from pathlib import Path

from powerhall.jobs.job_reader import JobReader
from powerhall.jobs.left_out import JobList
from powerhall.jobs.model import Job
from powerhall.jobs.readers.skipped import TraceLines
from powerhall.runtime.decode.bytes_in import open_text
from powerhall.runtime.decode.numbers_in import finite

__all__ = ["SWF", "read_swf", "read_swf_list"]

_COLUMNS = 18
_LEAST_COLUMNS = 5
_PARTS = (2, 3, 4)
_LATEST_S = 1e11
"""Start times beyond it, in the year 5138, are milliseconds."""


def _swf_rows(path: str | Path, lines: TraceLines) -> Iterator[list[float]]:
    for number, line in enumerate(open_text(path, replace=True), 1):
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        try:
            cells = [finite(cell) for cell in line.partition(";")[0].split()]
        except ValueError:
            lines.skip("with text for a number", number)
            continue
        if len(cells) < _LEAST_COLUMNS:
            lines.skip(f"with less than {_LEAST_COLUMNS} numbers", number)
            continue
        yield cells + [-1.0] * (_COLUMNS - len(cells))


def _seconds(text: str) -> float | None:
    try:
        seconds = finite(text)
    except ValueError:
        return None
    return float(int(seconds)) if seconds <= 1000.0 * _LATEST_S else None


def _origin_s(path: str | Path, lines: TraceLines) -> float:
    for line in open_text(path, replace=True):
        found = re.match(r"\s*;\s*UnixStartTime:\s*([0-9][0-9.eE+]*)(?![\d,'])", line, re.IGNORECASE)
        if found and (origin := _seconds(found[1])) is not None:
            if origin > _LATEST_S:
                lines.note("UnixStartTime is taken as milliseconds")
                return origin / 1000.0
            if origin == 0.0:
                break
            return origin
        if line.strip() and not line.lstrip().startswith(";"):
            break
    lines.note("the header has no UnixStartTime, or 0: submit times are counted from 1970")
    return 0.0


def read_swf_list(path: str | Path, zone: tzinfo | None = None, gpus_per_processor: float = 1.0) -> JobList:  # noqa: ARG001
    """Read the Standard Workload Format (18 columns, https://www.cs.huji.ac.il/labs/parallel/workload/swf.html).

    Processors become GPUs times `gpus_per_processor`; jobs that never ran are passed over; the header's UnixStartTime
    is the origin of the submit times. Columns that a line lacks are unknown.
    """
    lines = TraceLines(str(path))
    origin = _origin_s(path, lines)
    parts: dict[str, Job] = {}
    for cells in _swf_rows(path, lines):
        run_s, processors = cells[3], max(cells[4], cells[7])
        name, is_part = f"swf-{int(cells[0])}", cells[10] in _PARTS
        if run_s <= 0 or processors <= 0:
            lines.skip("that never ran")
            continue
        gpus = max(1, round(processors * gpus_per_processor))
        submit_s = origin + cells[1] if cells[1] >= 0 else origin
        job = Job(name, gpus, run_s, submit_s, job_class=f"queue{int(cells[14])}")
        if not is_part:
            lines.add(job, "of a job that is there twice")
        elif name in parts:
            before = parts[name]
            parts[name] = Job(
                name, max(gpus, before.gpus), before.duration_s + run_s, before.submit_s, before.job_class
            )
        else:
            parts[name] = job
        if is_part:
            lines.skip("that are parts of a job")
    for name, job in parts.items():
        lines.jobs.setdefault(name, job)
    return lines.found()


def read_swf(path: str | Path, gpus_per_processor: float = 1.0) -> tuple[Job, ...]:
    """Read the jobs of a file in the Standard Workload Format; see `read_swf_list`."""
    return read_swf_list(path, None, gpus_per_processor).jobs


def _recognises(first_line: str) -> bool:
    return first_line.startswith(";")


def _read(path: str | Path, zone: tzinfo | None = None) -> tuple[Job, ...]:
    return read_swf_list(path, zone).jobs


SWF = JobReader("swf", "SWF", _read, _recognises, (".swf", ".swf.gz"), read_swf_list)
