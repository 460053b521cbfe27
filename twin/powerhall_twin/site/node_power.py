"""Settled power of GPUs and nodes, and the speed of jobs on them, by the physics of the simulated GPUs.

The event-driven engine needs no transients: power settles within a second. A node type whose GPU is not simulated uses
the planning figures of the site file.
"""

from dataclasses import dataclass
from functools import lru_cache

from powerhall.jobs.model import Job
from powerhall.plan.plan import gpu_power_w, gpu_speed
from powerhall.site.topology import Mode, NodeType, Site
from powerhall_agent.simulate.models import MODELS, GpuModel
from powerhall_agent.simulate.physics import clock_ratio, draw_w
from powerhall_twin.site.job_behaviour import behaviour_of, speed_at

__all__ = ["GpuDraw", "NodeModel", "draw_of", "limit_of", "node_model"]


@dataclass(frozen=True, slots=True)
class GpuDraw:
    """Draw of one busy GPU in W with its share of the node, counted from zero, and its speed in (0, 1]."""

    gpu_power_w: float
    speed: float


@dataclass(frozen=True, slots=True)
class NodeModel:
    """How a node's power follows from its GPUs: `rest_idle_w + sum of GPUs + rest_slope * (sum of GPUs above idle)`.

    The rest is CPUs, network and fans. Its idle part and slope follow from the node type: idle power, and the planning
    figure of the fastest mode at the GPU's own limit.
    """

    gpu: GpuModel
    gpus: int
    rest_idle_w: float
    rest_slope: float

    def power_w(self, gpus_w: float) -> float:
        """Return the node's power when its GPUs together draw `gpus_w`."""
        return self.rest_idle_w + gpus_w + self.rest_slope * max(0.0, gpus_w - self.gpus * self.gpu.idle_w)

    def share_w(self, gpu_w: float) -> float:
        """Return one GPU's draw with its share of the rest."""
        return self.rest_idle_w / self.gpus + gpu_w + self.rest_slope * max(0.0, gpu_w - self.gpu.idle_w)


@lru_cache(maxsize=256)
def _node_model(gpu: str, gpus: int, idle_w: float, full_w: float, limit_w: float | None) -> NodeModel | None:
    found = MODELS.get(gpu.upper())
    if found is None:
        return None
    top_w = min(limit_w or found.limit_max_w, found.peak_w)
    slope = max(0.0, (full_w - idle_w / gpus) / (top_w - found.idle_w) - 1.0)
    return NodeModel(found, gpus, max(0.0, idle_w - gpus * found.idle_w), slope)


def node_model(kind: NodeType) -> NodeModel | None:
    """Return the node's model; None where its GPU is not simulated."""
    fastest = kind.modes[0]
    return _node_model(kind.gpu, kind.gpus, kind.idle_power_w, fastest.gpu_power_w, fastest.gpu_power_limit_w)


def limit_of(mode: Mode, gpu: GpuModel) -> float:
    """Return the power limit that a mode sets on a GPU in W."""
    return gpu.limit_default_w if mode.gpu_power_limit_w is None else mode.gpu_power_limit_w


@lru_cache(maxsize=65536)
def _settled(gpu: GpuModel, util: float, limit_w: float, cap: float) -> tuple[float, float]:
    floor = gpu.clock_idle_mhz / gpu.clock_max_mhz
    ratio = clock_ratio(util, limit_w, gpu.idle_w, gpu.peak_w, cap=cap, floor=floor)
    return draw_w(util, ratio, gpu.idle_w, gpu.peak_w), ratio


def draw_of(site: Site, job: Job, kind: NodeType, mode: Mode) -> GpuDraw:
    """Return draw and speed of one GPU of the job in this mode, at the job's mean utilization."""
    model = node_model(kind)
    if model is None:
        known = site.job_classes.get(job.job_class)
        return GpuDraw(gpu_power_w(kind, mode, known), gpu_speed(mode, known))
    behaviour = behaviour_of(job.job_class)
    cap = 1.0 if mode.sm_clock_mhz is None else min(1.0, mode.sm_clock_mhz / model.gpu.clock_max_mhz)
    gpu_w, ratio = _settled(model.gpu, behaviour.util, limit_of(mode, model.gpu), cap)
    return GpuDraw(model.share_w(gpu_w), speed_at(ratio, behaviour.clock_share))
