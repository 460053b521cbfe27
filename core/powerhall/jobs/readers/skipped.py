"""What a reader of a trace passes over, counted by reason, and notes on what it had to assume."""

from collections import Counter
from dataclasses import dataclass, field

from powerhall.jobs.job_reader import checked_trace, no_jobs
from powerhall.jobs.left_out import JobList, LeftOut
from powerhall.jobs.model import Job

__all__ = ["TraceLines"]


@dataclass(slots=True)
class TraceLines:
    """Collects the jobs of a trace, what is left out of them, and how many lines were skipped for each reason."""

    source: str
    jobs: dict[str, Job] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    first: str = ""
    """The first line that was skipped, and why."""

    def skip(self, why: str, line: int = 0) -> None:
        """Count a line that gives no job."""
        self.skipped[why] += 1
        if line and not self.first:
            self.first = f"line {line} is one {why}"

    def add(self, job: Job, twice: str) -> None:
        """Add a job; an earlier one of the same id is counted as skipped, as `twice` says."""
        if job.job_id in self.jobs:
            self.skip(twice)
        self.jobs[job.job_id] = job

    def note(self, text: str) -> None:
        """Note an assumption, once."""
        if text not in self.notes:
            self.notes.append(text)

    def found(self) -> JobList:
        """Return the jobs, or raise Rejected where there is none."""
        if self.skipped:
            parts = ", ".join(f"{count} {why}" for why, count in self.skipped.most_common())
            self.notes.append(f"{self.skipped.total()} lines skipped: {parts}")
        if not self.jobs and not self.left_out:
            raise no_jobs(self.source, self.first)
        jobs = checked_trace(self.source, list(self.jobs.values())) if self.jobs else ()
        return JobList(jobs, tuple(self.left_out), tuple(self.notes))
