"""Readings of a hall's nodes per bucket of ten seconds."""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from powerhall.site.topology import NodeType
from powerhall.store import Query, Select, Store

__all__ = ["BUCKET_S", "NodeReading", "node_power_w", "read_hall"]

BUCKET_S = 10
_BUSY_PERCENT = 5.0
_THROTTLED = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
"""Software power cap, hardware slowdown, software and hardware thermal slowdown, power brake (NVML event reasons)."""


@dataclass(slots=True)
class NodeReading:
    """A node in one bucket: GPU powers, the BMC's power where there is one, the hottest GPU, GPUs by state."""

    gpu_power_w: list[float] = field(default_factory=list)
    power_w: float | None = None
    temp_max_c: float | None = None
    busy: int = 0
    throttled: int = 0
    lost: int = 0


def read_hall(store: Store, site: str, hall: str, start_s: int, end_s: int) -> dict[str, dict[int, NodeReading]]:
    """Return node to bucket to reading over start_s <= time < end_s."""
    nodes: dict[str, dict[int, NodeReading]] = defaultdict(lambda: defaultdict(NodeReading))
    where = {"site": site, "hall": hall}
    gpus = (
        Select("power_w", "mean"),
        Select("temp_c", "max"),
        Select("util_percent", "mean"),
        Select("clocks_event_reasons", "last"),
    )
    query = Query("gpu", gpus, where, ("node", "gpu"), every_s=float(BUCKET_S))
    for row in store.query(query, start_s, end_s):
        reading = nodes[row.tags["node"]][int(row.time_s)]
        power_w, temp_c = row.number("power_w"), row.number("temp_c")
        if power_w is not None:
            reading.gpu_power_w.append(power_w)
        if temp_c is not None:
            reading.temp_max_c = max(temp_c, reading.temp_max_c or temp_c)
        reading.busy += (row.number("util_percent") or 0.0) > _BUSY_PERCENT
        reading.throttled += bool(int(row.number("clocks_event_reasons") or 0) & _THROTTLED)
    query = Query("gpu_state", (Select("up", "min"),), where, ("node", "gpu"), every_s=float(BUCKET_S))
    for row in store.query(query, start_s, end_s):
        nodes[row.tags["node"]][int(row.time_s)].lost += (row.number("up") or 0.0) < 1.0
    query = Query("node", (Select("power_w", "mean"),), where, ("node",), every_s=float(BUCKET_S))
    for row in store.query(query, start_s, end_s):
        nodes[row.tags["node"]][int(row.time_s)].power_w = row.number("power_w")
    return nodes


def node_power_w(reading: NodeReading, kind: NodeType) -> float:
    """Return a node's power in W: the BMC's, or its GPUs' with their share of the rest of the node.

    The share comes from the node type's modes, each of which pairs a GPU's own limit with its planning figure; between
    them it is interpolated, above and below in proportion. Never less than the idle node, nor the idle GPU each.
    """
    if reading.power_w is not None:
        return reading.power_w
    points = sorted((mode.gpu_power_limit_w, mode.gpu_power_w) for mode in kind.modes if mode.gpu_power_limit_w)
    total_w = sum(max(_with_share_w(power_w, points), kind.idle_gpu_power_w) for power_w in reading.gpu_power_w)
    return max(total_w, kind.idle_power_w)


def _with_share_w(power_w: float, points: list[tuple[float, float]]) -> float:
    if not points:
        return power_w
    for (low, low_w), (high, high_w) in pairwise(points):
        if low <= power_w <= high:
            return low_w + (high_w - low_w) * (power_w - low) / (high - low)
    limit, figure_w = points[0] if power_w < points[0][0] else points[-1]
    return power_w * figure_w / limit
