"""Mapping of a workload manager's job fields to those of the planner's job."""

import msgspec

__all__ = ["JobFields"]


class JobFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the fields of a scheduler's job become fields of a planned job."""

    weights: dict[str, float] = {}
    """Weight by queue, partition or quality of service; 1 where none is listed."""
    preemptible: tuple[str, ...] = ()
    """Queues, partitions or qualities of service whose jobs may be preempted."""
    node_types: dict[str, str] = {}
    """Node type of site.toml by the scheduler's GPU type; a job of another type may run on any."""
    checkpoint_cost_s: float = 0.0
    """Work that a preemption costs, in s."""
    default_duration_s: float = 86400.0
    """Duration of a job without a time limit, in s."""
