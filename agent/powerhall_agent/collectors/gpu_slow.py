"""Health counters and settings of one GPU, every ten seconds.

Power smoothing and workload power profiles exist since Blackwell; older GPUs do not support them.
Thresholds are absolute temperatures: from the getters (before Ada), or from the T-limit fields, which count down from
the maximum operating temperature, together with the present temperature and margin.
"""

import ctypes

import pynvml

from powerhall.store.gpu_fields import SLOW_FIELDS
from powerhall_agent.base.encoder import Fields
from powerhall_agent.collectors.field_table import combinations, field_specs, getter_calls
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.probe import Probe

__all__ = ["GpuSlow"]

_COMBINATIONS = combinations(SLOW_FIELDS)


class GpuSlow:
    """Collects `gpu_slow` of one GPU, without the energy closure that the sampler adds."""

    def __init__(self, driver: Driver, gpu: Gpu) -> None:
        """Prepare the batch and the getters."""
        self.batch = driver.batch(gpu, field_specs(SLOW_FIELDS, driver.number))
        self.getters = driver.getters(gpu, getter_calls(SLOW_FIELDS))
        self._gpu = gpu
        nv = pynvml
        self.pids: tuple[int, ...] = ()
        self._processes = Probe[float](self._count_processes)
        self._mig = Probe[float](lambda: nv.nvmlDeviceGetMigMode(gpu.handle)[0])
        self._fabric = Probe[float](self._fabric_state)
        self._range = Probe[list[int]](lambda: nv.nvmlDeviceGetPowerManagementLimitConstraints(gpu.handle))
        self._default = Probe[float](lambda: nv.nvmlDeviceGetPowerManagementDefaultLimit(gpu.handle))
        self._thresholds = {
            "temp_shutdown_c": Probe[float](lambda: nv.nvmlDeviceGetTemperatureThreshold(gpu.handle, 0)),
            "temp_slowdown_c": Probe[float](lambda: nv.nvmlDeviceGetTemperatureThreshold(gpu.handle, 1)),
        }
        self._reference = Probe[float](
            lambda: nv.nvmlDeviceGetTemperatureV(gpu.handle, 0) + nv.nvmlDeviceGetMarginTemperature(gpu.handle)
        )

    def _count_processes(self) -> float:
        self.pids = tuple(entry.pid for entry in pynvml.nvmlDeviceGetComputeRunningProcesses_v3(self._gpu.handle))
        return float(len(self.pids))

    def _fabric_state(self) -> float:
        info = pynvml.c_nvmlGpuFabricInfo_v2_t()
        pynvml.nvmlDeviceGetGpuFabricInfoV(self._gpu.handle, ctypes.byref(info))
        return float(info.state)

    def collect(self) -> Fields:
        """Read everything; raises NVMLError where the GPU or the driver is gone."""
        fields = self.batch.read()
        for combination in _COMBINATIONS:
            combination.apply(fields)
        self._temperatures(fields)
        self._limits(fields)
        fields.update(self.getters.read())
        for name, probe in (("processes", self._processes), ("fabric_state", self._fabric), ("mig_mode", self._mig)):
            value = probe.read()
            if value is not None:
                fields[name] = value
        return fields

    def _temperatures(self, fields: dict[str, float]) -> None:
        relative = {"temp_shutdown_c": "shutdown_tlimit_c", "temp_slowdown_c": "slowdown_tlimit_c"}
        for name, source in relative.items():
            limit_c = fields.pop(source, None)
            threshold_c = self._thresholds[name].read()
            if threshold_c is None and limit_c is not None:
                reference_c = self._reference.read()
                threshold_c = None if reference_c is None else reference_c - limit_c
            if threshold_c is not None:
                fields[name] = threshold_c

    def _limits(self, fields: dict[str, float]) -> None:
        if "power_limit_max_w" not in fields:
            limits = self._range.read()
            if limits is not None:
                fields["power_limit_min_w"], fields["power_limit_max_w"] = limits[0] / 1e3, limits[1] / 1e3
        if "power_limit_default_w" not in fields:
            default_mw = self._default.read()
            if default_mw is not None:
                fields["power_limit_default_w"] = default_mw / 1e3
