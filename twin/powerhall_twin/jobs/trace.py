"""A job trace as a replay takes it: what is wrong is left out or put in order, and counted."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from itertools import pairwise
from pathlib import Path

import msgspec

from powerhall.jobs.model import Job
from powerhall.jobs.readers.formats import read_trace_file
from powerhall.runtime.errors import Rejected

__all__ = ["Trace", "read_trace"]

_EXAMPLES = 3
_FIRST_S = 315_532_800.0
"""1980: times of a trace below count from its own start."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The jobs of a trace in the order of submission, and one line for each thing that was put right or left out."""

    jobs: tuple[Job, ...]
    notes: tuple[str, ...]


def read_trace(path: Path, form: str | None, zone: tzinfo | None, fits: Callable[[Job], None]) -> Trace:
    """Read a trace of any format; `fits` raises Rejected for a job that the site can never run.

    Left out, with counts and examples: jobs with a wrong field (no GPU, a duration that is negative or no number), a
    repeated id, parts of GPUs, no time of submission where others have one, and jobs that fit nowhere. Jobs that are
    out of order are sorted. A trace of which nothing is left raises Rejected with the first reason.
    """
    found = read_trace_file(path, form, zone)
    notes = list(found.notes)
    reasons = Counter(_kind(entry.reason) for entry in found.left_out)
    for reason, count in reasons.most_common():
        named = [entry.job_id for entry in found.left_out if _kind(entry.reason) == reason][:_EXAMPLES]
        notes.append(f"left out: {count} jobs: {reason}: {', '.join(named)}")
    whole = [job for job in found.jobs if job.gpu_share is None]
    if len(whole) < len(found.jobs):
        parts = len(found.jobs) - len(whole)
        notes.append(f"left out: {parts} jobs that take parts of GPUs; the twin simulates whole GPUs")
    kept = _that_fit(_with_times(whole, notes), fits, notes)
    if not kept:
        raise Rejected(f"{path}: no job to replay: {notes[-1] if notes else 'the trace is empty'}")
    late = sum(b.submit_s < a.submit_s for a, b in pairwise(kept))
    if late:
        notes.append(f"put in order: {late} jobs stood behind one that was submitted later")
    return Trace(tuple(sorted(kept, key=lambda job: job.submit_s)), tuple(notes))


def _kind(reason: str) -> str:
    """Return a reason without the job's own line and value, so that equal reasons are counted together."""
    field, _, rest = re.sub(r"^line \d+: ", "", reason).partition(": ")
    value, _, allowed = rest.partition(": ")
    return f"{field} {allowed}" if allowed and value else reason


def _with_times(jobs: list[Job], notes: list[str]) -> list[Job]:
    """Leave out jobs without a time of submission among those that have one, and what asks for blocks or nodes.

    No policy but Powerhall's could keep a wish for blocks or nodes; a wish that one alone keeps would be unfair.
    """
    dated = [job for job in jobs if job.submit_s != 0.0]
    if dated and len(dated) < len(jobs) and min(job.submit_s for job in dated) > _FIRST_S:
        notes.append(f"left out: {len(jobs) - len(dated)} jobs without a time of submission")
        jobs = dated
    free = [msgspec.structs.replace(job, within=None, block_nodes=None, allowed_nodes=None) for job in jobs]
    wishes = sum(one != other for one, other in zip(free, jobs, strict=True))
    if wishes:
        notes.append(f"{wishes} jobs ask for nodes or for blocks of nodes: the twin places them anywhere")
    return free


def _that_fit(jobs: Sequence[Job], fits: Callable[[Job], None], notes: list[str]) -> list[Job]:
    kept: list[Job] = []
    refused: list[str] = []
    for job in jobs:
        try:
            fits(job)
        except Rejected as error:
            refused.append(str(error))
        else:
            kept.append(job)
    if refused:
        notes.append(f"left out: {len(refused)} jobs that fit nowhere, the first: {refused[0]}")
    return kept
