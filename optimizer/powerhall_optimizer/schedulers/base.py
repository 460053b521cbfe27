"""Interface of workload managers: read the queue, write a plan, report the writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, runtime_checkable

import msgspec

from powerhall.jobs.left_out import LeftOut
from powerhall.jobs.model import Job
from powerhall.plan.plan import Plan
from powerhall.runtime.errors import Rejected
from powerhall.site.topology import Site
from powerhall_optimizer.schedulers import texts
from powerhall_optimizer.schedulers.skip_reasons import SkipReason

__all__ = [
    "Command",
    "PlanWriter",
    "Queue",
    "QueueReader",
    "Releasing",
    "Scheduler",
    "Skipped",
    "Withdrawing",
    "WriteReport",
    "check_fresh",
    "check_numbers",
    "counted_job",
]

S = TypeVar("S", bound=msgspec.Struct)
_A_DAY_S = 86_400.0


class Queue(msgspec.Struct, frozen=True):
    """Jobs that run or may be placed, and nodes that take nothing new (`down_nodes`) or are powered off (`off_nodes`).

    `left_out` has the reason for each job that is not offered to the planner (held by its user, waits for another job).
    One that runs is among the jobs too, and is counted.
    """

    taken_s: int
    jobs: tuple[Job, ...]
    down_nodes: tuple[str, ...] = ()
    left_out: dict[str, str] = {}
    off_nodes: tuple[str, ...] = ()


def counted_job(entry: LeftOut) -> Job:
    """Return a running job that no plan can have, as a queue names it: without a hall, so that it is only counted."""
    gpus, spread = (sum(entry.gpus_on_nodes), entry.gpus_on_nodes) if sum(entry.gpus_on_nodes) else (entry.gpus, ())
    nodes = entry.nodes or ""
    return Job(entry.job_id, max(1, gpus), _A_DAY_S, state="running", nodes=nodes, gpus_on_nodes=spread)


class Command(msgspec.Struct, frozen=True):
    """One write: its command line, its subject, and its error ("" when read back right)."""

    text: str
    subject: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An item of the plan that was left alone, and why; `job_id` where it is a job."""

    subject: str
    why: SkipReason
    job_id: str = ""

    @property
    def reason(self) -> str:
        """The text."""
        return texts.skip_text(self.why)


@dataclass(slots=True)
class WriteReport:
    """Writes of one application of a plan; in a dry run `commands` would have been issued."""

    scheduler: str
    plan_id: str
    dry_run: bool
    commands: list[Command] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    unchanged: int = 0

    @property
    def failed(self) -> list[Command]:
        """Writes that were refused or read back differently."""
        return [command for command in self.commands if command.error]

    def skip(self, subject: str, why: SkipReason) -> None:
        """Note that `subject` is left alone."""
        self.skipped.append(Skipped(subject, why))

    def skip_job(self, job_id: str, why: SkipReason) -> None:
        """Note that a job is left alone."""
        self.skipped.append(Skipped(f"job {job_id}", why, job_id))


class QueueReader(Protocol):
    """Reads the queue."""

    def read(self) -> Queue:
        """Return the queue as it is now; a workload manager that does not answer raises Retryable."""
        ...


class PlanWriter(Protocol):
    """Writes a plan."""

    def apply(self, plan: Plan, *, dry_run: bool = False) -> WriteReport:
        """Write the differences to the plan and verify them; the same plan again writes nothing."""
        ...


def check_fresh(plan: Plan, now_s: float) -> None:
    """Refuse a plan whose horizon is over."""
    end_s = plan.snapshot.start_s + plan.snapshot.slots * plan.snapshot.slot_s
    if end_s <= now_s:
        raise Rejected(texts.ended_plan_text(plan.plan_id, now_s - end_s))


@runtime_checkable
class Releasing(Protocol):
    """A plan writer that can undo its writes in the workload manager."""

    def release_all(self, *, dry_run: bool = False) -> WriteReport:
        """Restore every job as its user submitted it."""
        ...


@runtime_checkable
class Withdrawing(Protocol):
    """A plan writer that frees the jobs that wait for a plan that nobody renews; it needs no optimizer."""

    def withdraw_pins(self, *, dry_run: bool = False) -> WriteReport:
        """Free jobs whose planned nodes are refused, or of a plan that is older than two rounds."""
        ...


def _unchecked(_settings: S, _source: str) -> None:
    """Accept settings that need no check beyond their types."""


def _as_they_are(settings: S) -> S:
    return settings


@dataclass(frozen=True, slots=True)
class Scheduler(Generic[S]):
    """A workload manager: its settings, its queue reader and its plan writer.

    A module or package of this folder registers one under the name `SCHEDULER`. `settings` is the type of its table in
    the settings file, `check` refuses values out of range by field and value, and `may_stop` returns
    settings under which the writer stops running jobs, as an emergency shed needs.
    """

    name: str
    settings: type[S]
    needs_site: bool
    reader: Callable[[S, Site | None], QueueReader]
    writer: Callable[[S], PlanWriter]
    check: Callable[[S, str], None] = _unchecked
    may_stop: Callable[[S], S] = _as_they_are


def check_numbers(
    settings: msgspec.Struct, source: str, table: str, *, positive: Sequence[str], not_negative: Sequence[str] = ()
) -> None:
    """Refuse a number of a table that is out of its range."""
    for name in (*positive, *not_negative):
        value = getattr(settings, name)
        if value < 0 or (value == 0 and name in positive):
            allowed = "must be above 0" if name in positive else "must not be negative"
            raise Rejected.field(source, f"{table}.{name}", value, allowed)
