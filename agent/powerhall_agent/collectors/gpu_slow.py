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
_ALL_PERCENT = 100
"""Drivers fill samples that they do not have with larger numbers."""


class GpuSlow:
    """Collects `gpu_slow` of one GPU, without the energy closure that the sampler adds."""

    def __init__(self, driver: Driver, gpu: Gpu) -> None:
        """Prepare the batch and the getters."""
        self.batch = driver.batch(gpu, field_specs(SLOW_FIELDS, driver.number))
        self.getters = driver.getters(gpu, getter_calls(SLOW_FIELDS))
        self._gpu = gpu
        nv = pynvml
        self.pids: tuple[int, ...] = ()
        self.usage_percent: dict[int, float] = {}
        """Share of the multiprocessors that each process has used lately, where several share the GPU."""
        self._usage = Probe[dict[int, float]](self._usage_of_processes)
        self._usage_until_us = 0
        self._processes = Probe[float](self._count_processes)
        self._mig = Probe[float](lambda: nv.nvmlDeviceGetMigMode(gpu.handle)[0])
        self._profiles = Probe[str](self._profile_ids)
        self._fabric = Probe[float](self._fabric_state)
        self._numbers = (
            ("processes", self._processes),
            ("fabric_state", self._fabric),
            ("mig_mode", self._mig),
            ("temp_max_c", Probe[float](lambda: nv.nvmlDeviceGetTemperatureV(gpu.handle, nv.NVML_TEMPERATURE_GPU_MAX))),
        )
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

    def _usage_of_processes(self) -> dict[int, float]:
        """Return the mean of each process's samples since the last call."""
        try:
            samples = pynvml.nvmlDeviceGetProcessUtilization(self._gpu.handle, self._usage_until_us)
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_SUCCESS:  # the library's word for no samples
                return {}
            raise
        new = [
            sample for sample in samples if sample.timeStamp > self._usage_until_us and sample.smUtil <= _ALL_PERCENT
        ]
        self._usage_until_us = max((sample.timeStamp for sample in new), default=self._usage_until_us)
        found: dict[int, list[float]] = {}
        for sample in new:
            found.setdefault(sample.pid, []).append(float(sample.smUtil))
        return {pid: sum(values) / len(values) for pid, values in found.items()}

    def _profile_ids(self) -> str:
        """Return the workload power profiles in force: bits of eight words, numbered from 0."""
        info = pynvml.c_nvmlWorkloadPowerProfileCurrentProfiles_v1_t()
        info.version = pynvml.nvmlWorkloadPowerProfileCurrentProfiles_v1
        pynvml.nvmlDeviceWorkloadPowerProfileGetCurrentProfiles(self._gpu.handle, ctypes.byref(info))
        words = info.enforcedProfilesMask.mask
        return " ".join(
            str(32 * word + bit) for word in range(len(words)) for bit in range(32) if words[word] >> bit & 1
        )

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
        for name, probe in self._numbers:
            value = probe.read()
            if value is not None:
                fields[name] = value
        self.usage_percent = (self._usage.read() or {}) if len(self.pids) > 1 else {}
        profiles = self._profiles.read()
        return fields if profiles is None else {**fields, "power_profile_ids": profiles or "none"}

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
