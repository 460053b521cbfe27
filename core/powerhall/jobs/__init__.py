"""Jobs of the queue, Powerhall's own CSV and JSON files, and readers of public trace formats."""

from powerhall.jobs.job_files import read_jobs, write_jobs
from powerhall.jobs.model import Job, check_jobs
from powerhall.jobs.readers.formats import JOB_FORMATS, detect_format, read_job_file
from powerhall.jobs.readers.philly import read_philly
from powerhall.jobs.readers.sacct import read_sacct
from powerhall.jobs.readers.swf import read_swf

__all__ = [
    "JOB_FORMATS",
    "Job",
    "check_jobs",
    "detect_format",
    "read_job_file",
    "read_jobs",
    "read_philly",
    "read_sacct",
    "read_swf",
    "write_jobs",
]
