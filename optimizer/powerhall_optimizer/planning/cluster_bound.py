"""The bound of a certificate, summed up over shards of the jobs on a cluster: the same whole number as here.

A cluster that fails changes nothing but the time: the bound is then computed here.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from powerhall.plan.plan import Certificate, Snapshot
from powerhall.runtime.errors import PowerhallError
from powerhall.runtime.log import Log
from powerhall_optimizer.cluster import Cluster, connected
from powerhall_optimizer.solve.child_process import guarded
from powerhall_optimizer.verify.value import gains_of, proven_bound

__all__ = ["cluster_bound", "shard_gains"]

_PATIENCE_S, _CONNECT_S = 600.0, 5.0
_LEAST_JOBS = 2000
"""Jobs below which sending costs more than the bound."""


class _Task(NamedTuple):
    snapshots: tuple[Snapshot, ...]
    certificate: Certificate | None
    stops: Mapping[str, int]
    joint: bool


def _gains(task: _Task, jobs: slice) -> int:
    return gains_of(task.snapshots, task.certificate, task.stops, jobs, joint=task.joint)


def shard_gains(
    cluster: Cluster,
    snapshots: Sequence[Snapshot],
    certificate: Certificate | None,
    stops: Mapping[str, int],
    *,
    joint: bool = False,
) -> int:
    """Return the jobs' part of the bound, each shard's from a worker of a cluster."""
    jobs = len(snapshots[0].jobs)
    each = max(1, -(-jobs // (2 * cluster.threads)))
    shards = [slice(first, first + each) for first in range(0, jobs, each)]
    return sum(cluster.map(_gains, _Task(tuple(snapshots), certificate, dict(stops), joint), shards))


def cluster_bound(
    scheduler: str,
    snapshots: Sequence[Snapshot],
    certificate: Certificate | None,
    stops: Mapping[str, int],
    log: Log,
    *,
    joint: bool = False,
) -> int:
    """Return the bound that a certificate proves; with a scheduler its workers add up the jobs' part."""
    gains = None
    if scheduler and len(snapshots[0].jobs) >= _LEAST_JOBS:
        try:
            # In a process of its own: later parts of the round fork, and a connection must not be forked.
            gains = guarded(
                lambda _send: _on(scheduler, snapshots, certificate, stops, joint=joint),
                deadline_s=time.monotonic() + _PATIENCE_S,
                grace_s=0.0,
                stop=lambda: False,
            )
        except PowerhallError as error:
            log.warning("bound_here", reason=error)
    return proven_bound(snapshots, certificate, stops, joint=joint, gains=gains)


def _on(
    scheduler: str,
    snapshots: Sequence[Snapshot],
    certificate: Certificate | None,
    stops: Mapping[str, int],
    *,
    joint: bool,
) -> int:
    with connected(scheduler, _PATIENCE_S, _CONNECT_S) as cluster:
        return shard_gains(cluster, snapshots, certificate, stops, joint=joint)
