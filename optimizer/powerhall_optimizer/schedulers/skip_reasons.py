"""Why a workload manager's job is left alone or left out, as facts. Texts are in `schedulers.texts`."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["DRAWS_NOTHING", "LeftOut", "LeftOutCause", "Skip", "SkipReason"]


class Skip(StrEnum):
    """Why an item of a plan was not written; the value is the code in JSON reports."""

    NOT_THERE = "not_there"
    """The job is not there, or not managed by Powerhall."""
    ENDED = "ended"
    GONE = "gone"
    """The job neither waits nor runs any more."""
    WAITS_ALREADY = "waits_already"
    WAITS_AGAIN = "waits_again"
    RUNS_ALREADY = "runs_already"
    HELD_BY_USER = "held_by_user"
    HELD_BY_ADMIN = "held_by_admin"
    PREEMPT_OFF = "preempt_off"
    """The settings do not allow to stop a running job."""
    JOB_CHANGED = "job_changed"
    """Somebody else changed the job since Powerhall wrote it, and owns it until `name` is removed."""
    FIELD_CHANGED = "field_changed"
    """Somebody else changed the field `name` to `value`."""
    ASKED_BY_USER = "asked_by_user"
    """The user asked for `value`."""
    NODE_COUNT = "node_count"
    """The job asks for `count` nodes; the plan has `planned`."""
    KUEUE_PREEMPTS = "kueue_preempts"
    """The job runs in the Kueue queue `name`, which has to preempt it."""
    NO_LICENCE = "no_licence"
    NO_QUOTA = "no_quota"
    """The ClusterQueue has no resource `name`."""
    NO_SUSPEND_PROGRAM = "no_suspend_program"


DRAWS_NOTHING = frozenset({Skip.NOT_THERE, Skip.ENDED, Skip.GONE, Skip.WAITS_ALREADY})
"""Skips of jobs that do not run: nothing is left to stop."""


@dataclass(frozen=True, slots=True)
class SkipReason:
    """A skip with the parameters of its text."""

    code: Skip
    name: str = ""
    value: str = ""
    count: int = 0
    planned: int = 0


class LeftOutCause(StrEnum):
    """Why a job is not offered to the planner."""

    NO_GPUS = "no_gpus"
    HETEROGENEOUS = "heterogeneous"
    HELD_BY_USER = "held_by_user"
    HELD_BY_ADMIN = "held_by_admin"
    DEPENDENCY = "dependency"
    DEPENDENCY_FAILED = "dependency_failed"
    FOREIGN_NODES = "foreign_nodes"
    """It runs on nodes that the site does not have."""
    SEVERAL_POOLS = "several_pools"
    """It runs in several halls or on several node types."""
    UNKNOWN_HALL = "unknown_hall"
    """It runs, and no annotation says in which hall."""
    BAD_FIELD = "bad_field"
    """A field of it is malformed: `value` is the refusal."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A job that is not offered to the planner: the cause with the parameters of its text."""

    cause: LeftOutCause
    name: str = ""
    value: str = ""
