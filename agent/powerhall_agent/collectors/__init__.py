"""The sensors: one family per file, listed here once. A collector has one method, `collect`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from powerhall_agent.collectors.base import Collector
from powerhall_agent.collectors.gpu import GpuFull
from powerhall_agent.collectors.gpu_fast import GpuFast
from powerhall_agent.collectors.gpu_identity import GpuIdentity
from powerhall_agent.collectors.gpu_slow import GpuSlow
from powerhall_agent.nvml.driver import Driver, Gpu

__all__ = ["GPU_COLLECTORS", "Collector", "GpuEntry"]


@dataclass(frozen=True, slots=True)
class GpuEntry:
    """One GPU sensor family: its measurement, its usual seconds between readings, and how to make its collector."""

    measurement: str
    cadence_s: float
    make: Callable[[Driver, Gpu], Collector]


GPU_COLLECTORS: Final = (
    GpuEntry("gpu_fast", 0.1, GpuFast),
    GpuEntry("gpu", 1.0, GpuFull),
    GpuEntry("gpu_slow", 10.0, GpuSlow),
    GpuEntry("gpu_identity", 600.0, GpuIdentity),
)
"""MIG instances (`collectors.gpu_mig`) are made per partition; host families (`rapl`, `redfish`) per node."""
