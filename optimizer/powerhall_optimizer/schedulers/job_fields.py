"""How the fields of a workload manager's job become those of the planner's job."""

import msgspec

__all__ = ["JobFields"]


class JobFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the attributes of a workload manager's job become fields of the planner's job.

    `weights`, `preemptible` and `node_types` are looked up by queue (partition, Kueue queue), quality of service or
    GPU type; what is not listed has weight 1, is not preemptible and may run on any node type.
    """

    weights: dict[str, float] = {}
    preemptible: tuple[str, ...] = ()
    node_types: dict[str, str] = {}
    checkpoint_cost_s: float = 0.0
    default_duration_s: float = 86400.0
