"""Splits the energy of a GPU among its holders.

The driver measures a board alone, so that every split is an estimate; its method is stored beside the energy:

* `whole`: one holder;
* `mig_activity`: by the memory of each holder's MIG instances, weighted by their activity. `IDLE` of an instance's
  weight is there without activity: memory and clocks draw power at rest;
* `mig_memory`: by memory alone, where the driver does not tell the activity (before Hopper);
* `process_utilization`: by the share of the multiprocessors that the processes have used (NVML's process utilization);
* `equal`: none of these is known.

Holders of one MIG instance share its weight equally. What nobody holds is split too, so that shares sum up to one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from powerhall_agent.base.gpu_snapshot import GpuSnapshot, Holder, MigSlice

__all__ = ["SPLITS", "split"]

SPLITS: Final = ("whole", "mig_activity", "process_utilization", "mig_memory", "equal")
"""The methods, best first."""
IDLE: Final = 0.2
"""Share of the weight of a MIG instance that it has at rest: an H100 or H200 idles at about a fifth of its limit."""


def split(gpu: GpuSnapshot, holders: Sequence[Holder]) -> tuple[list[float], str]:
    """Return each holder's share, which sum up to 1, and the method."""
    if len(holders) == 1:
        return [1.0], "whole"
    weights, how = _by_instances(gpu, holders)
    if sum(weights) <= 0.0:
        weights = [sum(gpu.usage_percent.get(pid, 0.0) for pid in holder.pids) for holder in holders]
        how = "process_utilization"
    if sum(weights) <= 0.0:
        weights, how = [1.0] * len(holders), "equal"
    total = sum(weights)
    return [weight / total for weight in weights], how


def _by_instances(gpu: GpuSnapshot, holders: Sequence[Holder]) -> tuple[list[float], str]:
    """Weigh by MIG instances; all weights are 0 where a holder has none, or none with a size."""
    if not all(holder.instances for holder in holders):
        return [0.0] * len(holders), ""
    on_each = Counter(uuid for holder in holders for uuid in holder.instances)
    used = [gpu.slices.get(uuid) for uuid in on_each]
    if not all(one is not None and one.memory_bytes > 0.0 for one in used):
        return [0.0] * len(holders), ""
    has_activity = all(one is not None and one.activity_percent is not None for one in used)
    weights = [
        sum(_weight(gpu.slices[uuid], has_activity=has_activity) / on_each[uuid] for uuid in holder.instances)
        for holder in holders
    ]
    shared = any(count > 1 for count in on_each.values())
    return weights, "equal" if shared and len(on_each) == 1 else "mig_activity" if has_activity else "mig_memory"


def _weight(one: MigSlice, *, has_activity: bool) -> float:
    if not has_activity:
        return one.memory_bytes
    activity = min(max((one.activity_percent or 0.0) / 100.0, 0.0), 1.0)
    return one.memory_bytes * (IDLE + (1.0 - IDLE) * activity)
