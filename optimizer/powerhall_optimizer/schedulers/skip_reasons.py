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
    NOT_PINNED = "not_pinned"
    """Slurm refused the nodes that the job had; it starts where Slurm chooses."""
    NOT_OURS = "not_ours"
    """The job cannot be placed any more: `value` says why."""
    ENLARGED = "enlarged"
    """The job asks for `count` GPUs now; the plan has `planned`."""
    OTHER_NODES = "other_nodes"
    """The job may not start on the planned nodes any more."""
    NOT_CONFINED = "not_confined"
    """Its pods could run outside the hall and node type of the plan: `value` says what is missing."""
    JOB_DIFFERS = "job_differs"
    """The job was made anew, or changed its size, since the plan's snapshot."""
    NOT_GIVEN_BACK = "not_given_back"
    """A lower quota or a stop of the same plan failed, so nothing is started."""
    TAKEN_SINCE = "taken_since"
    """Others took `value` since the snapshot of the plan, for which it leaves no power."""
    NO_ROOM = "no_room"
    """Nobody plans, and the job's `count` GPUs at their worst do not fit into the power that is left."""
    NOT_BEFORE = "not_before"
    """It may not start yet: `value` says when."""
    NO_LICENCE = "no_licence"
    NOT_IN_TREE = "not_in_tree"
    """Slurm's power tree cannot hold the limits of the zones `value`."""
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
    UNKNOWN_NODES = "unknown_nodes"
    """It runs, and its host list `value` is not understood: its GPUs count wherever they draw most."""
    NO_ID = "no_id"
    """Slurm gives it no id, or that of another job: `value` is what it is called here."""
    SEVERAL_POOLS = "several_pools"
    """It runs in several halls or on several node types."""
    ACCOUNT_LIMIT = "account_limit"
    """It waits for a limit of its account, association or quality of service: `value` is Slurm's reason."""
    PARTITION = "partition"
    """Its partition does not start it."""
    RESERVATION = "reservation"
    """It runs in a reservation of its own."""
    PART_OF_GPU = "part_of_gpu"
    """It asks for shards, MPS units or MIG slices that are no one part of a GPU of the site."""
    SEVERAL_SHARES = "several_shares"
    """What it asks for is another share of a GPU on some nodes than on others."""
    NODE_RANGE = "node_range"
    """It asks for a range of node counts: `value`."""
    SPREAD = "spread"
    """It asks for its GPUs on more nodes than they fill."""
    SOME_NODES = "some_nodes"
    """It asks for the nodes `value` and others beside them."""
    FEATURES = "features"
    """Its feature expression `value` is not understood."""
    NO_NODES = "no_nodes"
    """No node of the site may take it."""
    NOT_CONFINED = "not_confined"
    """Nothing keeps it in one hall and on one node type: `value` says what is missing."""
    REASON = "reason"
    """Slurm gives another reason: `value`."""
    SLICES = "slices"
    """It asks for parts of GPUs, or claims devices."""
    PART_OF_JOB = "part_of_job"
    """It is a part of the job `name`, which stops and starts it."""
    NO_SUSPEND = "no_suspend"
    """Nothing stops and starts it: `value` says why."""
    SHAPE = "shape"
    """It is no gang that is planned: `value` says what it asks for."""
    NOT_LISTED = "not_listed"
    """The jobs of the kind `name` may not be read: `value` is the refusal."""
    JOB_CHANGED = "job_changed"
    """Somebody else changed it since Powerhall wrote it, and owns it until `name` is removed."""
    ENDING = "ending"
    """It has ended or was stopped, and its pods still run."""
    BAD_FIELD = "bad_field"
    """A field of it is malformed: `value` is the refusal."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A job that is not offered to the planner: the cause with the parameters of its text."""

    cause: LeftOutCause
    name: str = ""
    value: str = ""
