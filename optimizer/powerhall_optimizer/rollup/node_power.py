"""The power of a node from its readings: what is measured, what is estimated, what is assumed at its worst.

Nothing implausible is believed, and nothing that is missing is left out: a BMC that shows less than the GPUs draw, or
far less than an idle node (it may show one GPU, the GPUs' baseboard, or kilowatts), gives way to the GPUs; a GPU
without a plausible reading counts at its worst.
"""

from dataclasses import dataclass
from itertools import pairwise

from powerhall.site.topology import NodeType
from powerhall_optimizer.rollup.readings import NodeReading

__all__ = ["NodePower", "node_power", "share_points", "unknown_node", "with_share_w"]

_SHORT = 0.9
"""The BMC's mean may lag behind a step of the GPUs' load by this part."""


_IDLE_SHARE = 0.5
"""A node that runs draws this part of its idle power at least: planning figures are no measurements."""


@dataclass(frozen=True, slots=True)
class NodePower:
    """Power of a node in W by its source, what the GPUs alone are known to draw, and what was not believed and why."""

    measured_w: float = 0.0
    estimated_w: float = 0.0
    assumed_w: float = 0.0
    known_w: float = 0.0
    doubts: tuple[str, ...] = ()

    @property
    def power_w(self) -> float:
        """The power that the node is counted with."""
        return self.measured_w + self.estimated_w + self.assumed_w


def unknown_node(kind: NodeType) -> NodePower:
    """Return the power of a node without readings: its maximum."""
    return NodePower(assumed_w=kind.max_power_w)


def node_power(reading: NodeReading, kind: NodeType) -> NodePower:
    """Return a node's power: the BMC's, or its GPUs' with their share of the rest of the node.

    The share comes from the node type's modes, each of which pairs a GPU's own limit with its planning figure; between
    them it is interpolated, above and below in proportion. Never less than the idle node, nor the idle GPU each. A GPU
    that the driver lists and that shows nothing may draw its most; one that it does not list does no work.
    """
    gpus_w, doubts = sum(reading.gpu_power_w), tuple(reading.garbage)
    if reading.power_w is not None:
        why = _bmc_fault(reading.power_w, gpus_w, kind)
        if not why:
            return NodePower(measured_w=reading.power_w, known_w=max(reading.power_w, gpus_w), doubts=doubts)
        doubts += (f"the BMC shows {reading.power_w:,.0f} W while {why}",)
    if not reading.gpu_power_w:
        return NodePower(assumed_w=kind.max_power_w, doubts=doubts)
    points = share_points(kind)
    estimated_w = sum(max(with_share_w(power_w, points), kind.idle_gpu_power_w) for power_w in reading.gpu_power_w)
    listed = kind.gpus if reading.listed is None else min(kind.gpus, reading.listed)
    silent = max(0, listed - len(reading.gpu_power_w))
    absent = max(0, kind.gpus - len(reading.gpu_power_w) - silent)
    assumed_w = silent * _most_gpu_w(kind) + absent * kind.idle_gpu_power_w
    return NodePower(0.0, max(estimated_w, kind.idle_power_w - assumed_w), assumed_w, gpus_w, doubts)


def _bmc_fault(power_w: float, gpus_w: float, kind: NodeType) -> str:
    """Return why a node cannot draw so little; "" where it can."""
    if power_w <= 0.0 or power_w < _SHORT * gpus_w:
        return f"the GPUs draw {gpus_w:,.0f} W"
    if power_w < _IDLE_SHARE * kind.idle_power_w:
        return f"an idle node draws {kind.idle_power_w:,.0f} W"
    return ""


def _most_gpu_w(kind: NodeType) -> float:
    """Return the most that a GPU with its share of the node draws as planned, in W."""
    return max([kind.max_power_w / max(1, kind.gpus), *(mode.gpu_power_w for mode in kind.modes)])


def share_points(kind: NodeType) -> list[tuple[float, float]]:
    """Return a GPU's own power and its power with its share of the node, in W, for each mode that limits power."""
    return sorted((mode.gpu_power_limit_w, mode.gpu_power_w) for mode in kind.modes if mode.gpu_power_limit_w)


def with_share_w(power_w: float, points: list[tuple[float, float]]) -> float:
    """Return the power of a GPU in W with its share of the rest of the node, by the points of `share_points`."""
    if not points:
        return power_w
    for (low, low_w), (high, high_w) in pairwise(points):
        if low <= power_w <= high:
            return low_w + (high_w - low_w) * (power_w - low) / (high - low)
    limit, figure_w = points[0] if power_w < points[0][0] else points[-1]
    return power_w * figure_w / limit
