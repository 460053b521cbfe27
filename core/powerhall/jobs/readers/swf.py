"""The Standard Workload Format: 18 columns, comments after `;`."""

import re
from collections.abc import Iterator
from pathlib import Path

from powerhall.jobs.job_reader import JobReader, checked_trace
from powerhall.jobs.model import Job
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import open_text

__all__ = ["SWF", "read_swf"]


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
    return checked_trace(path, jobs)


def _recognises(first_line: str) -> bool:
    return first_line.startswith(";")


SWF = JobReader("swf", "SWF", read_swf, _recognises, (".swf", ".swf.gz"))
