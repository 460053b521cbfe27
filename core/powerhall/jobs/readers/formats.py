"""Job formats by name, and their detection. To add a format, add a module, a row here, a test and a page."""

from collections.abc import Mapping
from pathlib import Path

from powerhall.jobs.job_files import OWN
from powerhall.jobs.job_reader import JobReader
from powerhall.jobs.model import Job
from powerhall.jobs.readers.philly import PHILLY
from powerhall.jobs.readers.sacct import SACCT
from powerhall.jobs.readers.swf import SWF
from powerhall.runtime.errors import Rejected
from powerhall.timeseries import open_text

__all__ = ["JOB_FORMATS", "detect_format", "format_titles", "read_job_file"]

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
    first = open_text(path).readline().strip()
    for reader in JOB_FORMATS.values():
        if reader.recognises(first):
            return reader.name
    allowed = f"must be one of the formats {', '.join(sorted(JOB_FORMATS))}; name it with --jobs-format"
    raise Rejected.field(str(path), "first line", first[:60], allowed)


def read_job_file(path: str | Path, form: str | None = None) -> tuple[Job, ...]:
    """Read a job file of any format; without `form` its format is detected."""
    path = Path(path)
    if form is not None and form not in JOB_FORMATS:
        raise Rejected.field(str(path), "format", form, f"must be one of {', '.join(sorted(JOB_FORMATS))}")
    return JOB_FORMATS[form or detect_format(path)].read(path)
