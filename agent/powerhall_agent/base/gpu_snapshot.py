"""A GPU at one observation, and who holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["GpuSnapshot", "Holder", "MigSlice"]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a GPU: the scheduler's job id, and a hash of the user where that is configured.

    `pids` are its processes on the GPU and `instances` the UUIDs of its MIG instances, as far as they are known; `user`
    is the user's number, -1 where it is not.
    """

    job: str
    user_hash: str = ""
    pids: frozenset[int] = frozenset()
    instances: frozenset[str] = frozenset()
    user: int = -1


@dataclass(frozen=True, slots=True)
class MigSlice:
    """A MIG instance: its GPU instance id, processes, memory, and activity in % where the driver tells it."""

    number: int
    pids: tuple[int, ...] = ()
    memory_bytes: float = 0.0
    activity_percent: float | None = None


@dataclass(frozen=True, slots=True)
class GpuSnapshot:
    """A GPU at one observation: its UUID, its processes, its energy so far and its MIG instances' UUIDs.

    `slices` describes the instances by UUID; `usage_percent` is the share of the multiprocessors that each process has
    used lately, where the driver tells it.
    """

    uuid: str
    bus_id: str
    pids: tuple[int, ...]
    energy_j: float
    instances: tuple[str, ...] = ()
    slices: Mapping[str, MigSlice] = field(default_factory=dict)
    usage_percent: Mapping[int, float] = field(default_factory=dict)
