"""Jobs: what the scheduler wants to run, Powerhall's own CSV and JSON files, and readers for public trace formats."""

from powerhall.jobs.job_files import read_jobs, write_jobs
from powerhall.jobs.model import Job, check_jobs
from powerhall.jobs.readers.traces import read_philly, read_sacct, read_swf

__all__ = ["Job", "check_jobs", "read_jobs", "read_philly", "read_sacct", "read_swf", "write_jobs"]
