"""Health counters and settings of one GPU, every ten seconds.

Power smoothing and workload power profiles are those of Blackwell; the driver of older GPUs does not support them.
Thresholds come as absolute temperatures: from the getters (before Ada), or from the T-limit fields, which count down
from the maximum operating temperature, together with the present temperature and margin.
"""

import ctypes

import pynvml

from powerhall_agent.base.encoder import Fields
from powerhall_agent.nvml.driver import Driver, Gpu
from powerhall_agent.nvml.fields import FieldSpec
from powerhall_agent.nvml.getters import GetterCall
from powerhall_agent.nvml.probe import Probe

__all__ = ["GpuSlow"]

_SPECS = (
    FieldSpec("ecc_corrected", 5),
    FieldSpec("ecc_uncorrected", 6),
    FieldSpec("remapped_correctable", 142),
    FieldSpec("remapped_uncorrectable", 143),
    FieldSpec("remap_pending", 144),
    FieldSpec("retired_single", 29),
    FieldSpec("retired_double", 30),
    FieldSpec("power_limit_min_w", 187, 0, 1e3),
    FieldSpec("power_limit_max_w", 188, 0, 1e3),
    FieldSpec("power_limit_default_w", 189, 0, 1e3),
    FieldSpec("shutdown_tlimit_c", 193),
    FieldSpec("slowdown_tlimit_c", 194),
)
_SMOOTHING = (FieldSpec("power_smoothing", 251), FieldSpec("power_smoothing_profile", 264))
_SMOOTHING_SINCE = (580, 82)
"""In drivers before, the ids mean slowdown times or nothing."""
_PROFILES = (
    GetterCall(
        "nvmlDeviceWorkloadPowerProfileGetCurrentProfiles", pynvml.c_nvmlWorkloadPowerProfileCurrentProfiles_v1_t,
        (("power_profiles", "enforcedProfilesMask"),), (),
        (("version", pynvml.nvmlWorkloadPowerProfileCurrentProfiles_v1),),
    ),
)  # fmt: skip
_SUMS = (
    ("remapped_rows", ("remapped_correctable", "remapped_uncorrectable")),
    ("retired_pages", ("retired_single", "retired_double")),
)


class GpuSlow:
    """Collects `gpu_slow` of one GPU, without the energy closure that the sampler adds."""

    def __init__(self, driver: Driver, gpu: Gpu) -> None:
        """Prepare the batch and the getters."""
        self.batch = driver.batch(gpu, [*_SPECS, *(_SMOOTHING if driver.number >= _SMOOTHING_SINCE else ())])
        self.getters = driver.getters(gpu, (_PROFILES,))
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
        for total, parts in _SUMS:
            found = [fields.pop(part) for part in parts if part in fields]
            if found:
                fields[total] = sum(found)
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
