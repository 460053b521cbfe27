"""What every workload manager gives the optimizer: its queue, and a report of what writing a plan did."""

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from powerhall.jobs.model import Job
from powerhall.plan.plan import Plan

__all__ = ["Command", "PlanWriter", "Queue", "QueueReader", "Report", "Skipped", "check_fresh"]


class Queue(msgspec.Struct, frozen=True):
    """Jobs that the planner may place, and nodes that it may not use.

    `left_out` says for each other job why it is not offered to the planner (held by its user, waits for another job).
    """

    taken_s: int
    jobs: tuple[Job, ...]
    down_nodes: tuple[str, ...] = ()
    left_out: dict[str, str] = {}


class Command(msgspec.Struct, frozen=True):
    """One write: as a person would type it, what it is about, and the error it ended with ("" when read back right)."""

    text: str
    subject: str
    error: str = ""


class Skipped(msgspec.Struct, frozen=True):
    """Something of the plan that was left alone, and why."""

    subject: str
    reason: str


@dataclass(slots=True)
class Report:
    """What one application of a plan did; in a dry run `commands` would have been issued."""

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

    def skip(self, subject: str, reason: str) -> None:
        """Note that `subject` is left alone."""
        self.skipped.append(Skipped(subject, reason))


class QueueReader(Protocol):
    """Reads the queue."""

    def read(self) -> Queue:
        """Return the queue as it is now; a workload manager that does not answer raises Retryable."""
        ...


class PlanWriter(Protocol):
    """Writes a plan."""

    def apply(self, plan: Plan, *, dry_run: bool = False) -> Report:
        """Write what differs from the plan and read it back; the same plan again writes nothing."""
        ...


def check_fresh(plan: Plan, now_s: float) -> str:
    """Return why a plan is too old to be written, or ""."""
    end_s = plan.snapshot.start_s + plan.snapshot.slots * plan.snapshot.slot_s
    if end_s <= now_s:
        return f"the plan {plan.plan_id[:12]} ended {now_s - end_s:.0f} s ago: make a new one"
    return ""
