"""The collectors: one sensor family per file, registered in one of the tables below.

A collector has one method, `collect`. MIG instances (gpu_mig.py) are found per GPU and are in no table.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from powerhall_agent.base.sensor_log import SensorLog
from powerhall_agent.collectors.collector import Collector
from powerhall_agent.collectors.gpu import GpuFull
from powerhall_agent.collectors.gpu_fast import GpuFast
from powerhall_agent.collectors.gpu_identity import GpuIdentity
from powerhall_agent.collectors.gpu_slow import GpuSlow
from powerhall_agent.collectors.rapl import POWERCAP, Rapl
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.settings.sampler_settings import SamplerSettings

__all__ = ["GPU_COLLECTORS", "HOST_COLLECTORS", "Collector", "GpuCollector", "HostCollector"]


@dataclass(frozen=True, slots=True)
class GpuCollector:
    """A sensor family of each GPU: its measurement, and how to make the collector for the wanted fields."""

    measurement: str
    make: Callable[[Driver, Gpu, Collection[str]], Collector]


@dataclass(frozen=True, slots=True)
class HostCollector:
    """A sensor family of the host, which reads into `node` in a thread of its own."""

    name: str
    make: Callable[[SamplerSettings, SensorLog], Collector | None]
    """Makes it with the log of implausible readings; None where the settings or the host have no such sensors."""
    interval_s: Callable[[SamplerSettings], float]


GPU_COLLECTORS: Final = (
    GpuCollector("gpu_fast", lambda driver, gpu, _fields: GpuFast(driver, gpu)),
    GpuCollector("gpu", GpuFull),
    GpuCollector("gpu_slow", lambda driver, gpu, _fields: GpuSlow(driver, gpu)),
    GpuCollector("gpu_identity", lambda driver, gpu, _fields: GpuIdentity(driver, gpu)),
)


def _rapl(settings: SamplerSettings, sensors: SensorLog) -> Collector | None:
    return Rapl(sensors=sensors) if settings.rapl and POWERCAP.is_dir() else None


def _redfish(settings: SamplerSettings, _sensors: SensorLog) -> Collector | None:
    if settings.redfish is None:
        return None
    from powerhall_agent.collectors.redfish import Redfish  # loads an HTTP client that most nodes do not need

    return Redfish(settings.redfish)


HOST_COLLECTORS: Final = (
    HostCollector("rapl", _rapl, lambda settings: settings.interval_s),
    HostCollector("redfish", _redfish, lambda settings: settings.redfish.interval_s if settings.redfish else 5.0),
)
