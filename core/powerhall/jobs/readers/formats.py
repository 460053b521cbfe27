"""Job formats by name, and their detection. To add a format, add a module, a row here, a test and a page."""

from collections.abc import Mapping
from datetime import tzinfo
from pathlib import Path

from powerhall.jobs.job_files import OWN
from powerhall.jobs.job_reader import JobReader
from powerhall.jobs.left_out import JobList
from powerhall.jobs.model import Job
from powerhall.jobs.readers.philly import PHILLY
from powerhall.jobs.readers.sacct import SACCT
from powerhall.jobs.readers.swf import SWF
from powerhall.runtime.decode.bytes_in import open_text
from powerhall.runtime.errors import Rejected

__all__ = ["JOB_FORMATS", "detect_format", "format_titles", "read_job_file", "read_queue_file", "read_trace_file"]

JOB_FORMATS: Mapping[str, JobReader] = {reader.name: reader for reader in (SWF, SACCT, PHILLY, OWN)}
"""Readers by name, in the order in which they are tried."""


def format_titles() -> str:
    """Return the formats for a help text: "own CSV or JSON, Philly CSV, ..., or SWF"."""
    *titles, last = (JOB_FORMATS[name].title for name in sorted(JOB_FORMATS))
    return f"{', '.join(titles)}, or {last}"


def detect_format(path: Path) -> str:
    """Return the format of a job file by its name, else by its first line; Rejected where none fits."""
    name = path.name.lower()
    for reader in JOB_FORMATS.values():
        if name.endswith(reader.endings):
            return reader.name
    first = open_text(path, replace=True).readline().strip()
    for reader in JOB_FORMATS.values():
        if reader.recognises(first):
            return reader.name
    allowed = f"must be one of the formats {', '.join(sorted(JOB_FORMATS))}; name it with --jobs-format"
    raise Rejected.field(str(path), "first line", first[:60], allowed)


def _reader(path: Path, form: str | None) -> JobReader:
    if form is not None and form not in JOB_FORMATS:
        raise Rejected.field(str(path), "format", form, f"must be one of {', '.join(sorted(JOB_FORMATS))}")
    return JOB_FORMATS[form or detect_format(path)]


def read_job_file(path: str | Path, form: str | None = None, zone: tzinfo | None = None) -> tuple[Job, ...]:
    """Read a job file of any format; without `form` its format is detected. A wrong job of ours raises Rejected.

    Times without an offset are local to `zone`, or UTC.
    """
    path = Path(path)
    return _reader(path, form).read(path, zone)


def read_queue_file(path: str | Path, form: str | None = None, zone: tzinfo | None = None) -> JobList:
    """Read a queue of any format; a wrong job is left out with its reason, and the notes say what was skipped.

    Times without an offset are local to `zone`, or UTC.
    """
    path = Path(path)
    return _reader(path, form).read_list(path, zone)


def read_trace_file(path: str | Path, form: str | None = None, zone: tzinfo | None = None) -> JobList:
    """Read the jobs of a trace of any format; a wrong job is left out with its reason, and the notes say what else is.

    Times without an offset are local to `zone`, or UTC.
    """
    path = Path(path)
    reader = _reader(path, form)
    return (reader.read_trace or reader.read_list)(path, zone)
